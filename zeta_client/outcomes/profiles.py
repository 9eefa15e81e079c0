"""Profile prompts as the embedding service would, in this process, and remember their vectors.

Vectors are kept on disk by the text's hash, a file per encoder, so that the next run starts at
once; what was encoded when a run is broken off is kept too.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import Features, lexical
from router_svc.core.pieces import pieces
from services.embedding.core.profile import Head, profiles
from services.embedding.encoded import Encoder, Prepared
from services.kit.config import Embedding

Vectors = dict[bytes, tuple[NDArray[np.float32], int]]
"""By the text's hash: its unit vector (D,) and how many tokens it has."""
OnEncoded = Callable[[int, int], None]
"""Told how many texts are encoded, and of how many."""

_BATCH_TEXTS: Final = 64
_SAVE_EVERY: Final = 32
"""Batches."""
_WAIT_S: Final = 120.0


def profiled(
    prompts: Sequence[str], settings: Embedding, cache: Path, on_encoded: OnEncoded
) -> list[Features]:
    """Profile *prompts*, in order. Raises ConfigError where there is no encoder."""
    # Imported here: ONNX Runtime takes a while to load, and no other command needs it.
    from services.embedding import encoder as onnx  # noqa: PLC0415 - see above
    from services.embedding.heads import head_for  # noqa: PLC0415 - see above

    wide = msgspec.structs.replace(settings, threads=os.cpu_count() or 1)
    encoder = onnx.load(wide, cache)
    name = f"vectors-{encoder.sha256[:16]}-{encoder.provider}-{settings.max_tokens}.sqlite3"
    with closing(opened(cache / name)) as store:
        vectors = encoded(dict.fromkeys(prompts), encoder, store, on_encoded)
    dimensions = len(next(iter(vectors.values()))[0])
    return features(prompts, vectors, head_for(encoder.sha256, dimensions)[1], encoder.name)


def encoded(
    prompts: Iterable[str], encoder: Encoder, store: sqlite3.Connection, on_encoded: OnEncoded
) -> Vectors:
    """Encode those of the different *prompts* that are not in *store*, and put them there."""
    keys = {_key(text): text for text in prompts}
    found = _load(store, keys)
    missing = {key: encoder.prepare(text) for key, text in keys.items() if key not in found}
    done = len(found)
    on_encoded(done, len(keys))
    for number, batch in enumerate(_batches(missing, encoder.batch_tokens)):
        vectors = encoder.run([missing[key].ids for key in batch])
        new = {
            key: (vector, missing[key].tokens) for key, vector in zip(batch, vectors, strict=True)
        }
        _save(store, new)
        if number % _SAVE_EVERY == 0:
            store.commit()
        found |= new
        done += len(batch)
        on_encoded(done, len(keys))
    store.commit()
    return found


def features(
    prompts: Sequence[str],
    vectors: Mapping[bytes, tuple[NDArray[np.float32], int]],
    head: Head,
    source: str,
) -> list[Features]:
    """Return what the router knows of each prompt, from its vector and its text."""
    rows = [vectors[_key(text)] for text in prompts]
    made = profiles(prompts, np.stack([vector for vector, _ in rows]), head)
    return [
        Features(
            embedding=vector.astype(np.float64),
            tasks=np.array(profile.tasks),
            difficulty=profile.difficulty_ratio,
            expected_output_tokens=profile.output_tokens,
            prompt_tokens=max(tokens, 1),
            lexical=lexical(text),
            pieces=pieces(text),
            source=source,
        )
        for text, (vector, tokens), profile in zip(prompts, rows, made, strict=True)
    ]


def opened(path: Path) -> sqlite3.Connection:
    """Open a store of vectors, made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another replay may be writing: it commits between batches.
    store = sqlite3.connect(path, timeout=_WAIT_S)
    store.execute(
        "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB, tokens INTEGER)"
    )
    return store


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _load(store: sqlite3.Connection, keys: Iterable[bytes]) -> Vectors:
    read = "SELECT vector, tokens FROM vectors WHERE key = ?"
    rows = ((key, store.execute(read, (key,)).fetchone()) for key in keys)
    return {key: (np.frombuffer(row[0], np.float32), row[1]) for key, row in rows if row}


def _save(store: sqlite3.Connection, vectors: Vectors) -> None:
    store.executemany(
        "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
        [(key, vector.tobytes(), tokens) for key, (vector, tokens) in vectors.items()],
    )


def _batches(texts: Mapping[bytes, Prepared], tokens: int) -> Iterator[list[bytes]]:
    """Group texts of like length, so that little is padding, within *tokens* each."""
    batch: list[bytes] = []
    for key in sorted(texts, key=lambda key: len(texts[key].ids)):
        if batch and (
            (len(batch) + 1) * len(texts[key].ids) > tokens or len(batch) == _BATCH_TEXTS
        ):
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch
