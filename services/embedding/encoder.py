"""The encoder on ONNX Runtime: 8 bits on a CPU, fp32 on CUDA where the runtime offers it.

The converted graph is cached on disk: SHA-256 of the body, then the body. A file that is damaged
or cut short is built again.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import structlog
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.embedding.checkpoint import Checkpoint, open_checkpoint, read_weights
from services.embedding.core.pooling import head_and_tail, padded, unit
from services.embedding.encoded import Prepared
from services.embedding.shape import BUILDER_VERSION, Precision
from services.kit.config import Embedding
from services.kit.errors import ConfigError

log = structlog.get_logger()

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_BATCH_TOKENS = {_CUDA: 16_384, _CPU: 256}
_DIGEST_BYTES = hashlib.sha256().digest_size


class OnnxEncoder:
    """A sentence-transformers model of BERT's kind. Implements `encoded.Encoder`."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        session: ort.InferenceSession,
        *,
        max_tokens: int,
    ) -> None:
        self._name, self._session, self._pool = name, session, checkpoint.pool
        self._limit = min(max_tokens, checkpoint.max_positions)
        self._tokenizer = _tokenizer(checkpoint)
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self.sha256 = checkpoint.sha256

    @property
    def name(self) -> str:
        """What callers are told made their vectors."""
        return self._name

    @property
    def batch_tokens(self) -> int:
        """On a CPU little is gained beyond this, and a shorter batch lets urgent texts in."""
        return _BATCH_TOKENS[self.provider]

    @property
    def provider(self) -> str:
        """What of ONNX Runtime computes; its precision follows from it."""
        return str(self._session.get_providers()[0])

    def prepare(self, text: str) -> Prepared:
        """Tokenise *text* and keep its head and tail where it is too long."""
        ids = self._tokenizer.encode(text).ids
        return Prepared(
            ids=head_and_tail(ids, self._limit),
            tokens=len(ids) - self._special,
            truncated=len(ids) > self._limit,
        )

    def run(self, rows: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """Return one unit vector per row of token ids, (B, D)."""
        ids, mask = padded(rows)
        (hidden,) = self._session.run(None, {"ids": ids, "mask": mask})
        return unit(self._pool(hidden, mask))


def load(settings: Embedding, cache: Path) -> OnnxEncoder:
    """Open the configured encoder, converting it into *cache* if that was not done before.

    Raises ConfigError for a directory that is not a BERT of sentence-transformers.
    """
    checkpoint = open_checkpoint(settings.dir)
    session = _open_cuda(checkpoint, settings, cache) or open_session(
        converted(checkpoint, "int8", cache), threads=settings.threads
    )
    provider = session.get_providers()[0]
    log.info("encoder ready", sha256=checkpoint.sha256, provider=provider)
    return OnnxEncoder(settings.name, checkpoint, session, max_tokens=settings.max_tokens)


def _open_cuda(
    checkpoint: Checkpoint, settings: Embedding, cache: Path
) -> ort.InferenceSession | None:
    """Open the fp32 graph on CUDA; None where the runtime or the machine has none."""
    if _CUDA not in ort.get_available_providers():
        return None
    model = converted(checkpoint, "fp32", cache)
    session = open_session(model, threads=settings.threads, provider=_CUDA)
    # ONNX Runtime falls back to the CPU by itself where a driver or a library is missing.
    return session if session.get_providers()[0] == _CUDA else None


def open_session(model: bytes, *, threads: int, provider: str = _CPU) -> ort.InferenceSession:
    """Open *model* with *threads* threads that sleep while they wait."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=[provider])


def converted(checkpoint: Checkpoint, precision: Precision, cache: Path) -> bytes:
    """Return *checkpoint* as an ONNX model, from *cache* where an undamaged copy lies there."""
    path = cache / f"embedding-{checkpoint.sha256[:16]}-{precision}-{BUILDER_VERSION}.onnx"
    model = _cached(path)
    if model is None:
        log.info("converting", folder=str(checkpoint.folder), precision=precision)
        model = _convert(checkpoint, precision)
        _store(path, model)
    return model


def _convert(checkpoint: Checkpoint, precision: Precision) -> bytes:
    # Imported here, because onnx takes long to import and most starts find the cache filled.
    from services.embedding.graph import build  # noqa: PLC0415 - see above

    try:
        return build(read_weights(checkpoint), checkpoint.shape, precision)
    except KeyError as error:
        raise ConfigError(f"embedding.dir: model.safetensors lacks {error}") from error


def _cached(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, model = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(model).digest() == digest:
        return model
    log.warning("cache damaged", path=str(path))
    return None


def _store(path: Path, model: bytes) -> None:
    """Write and rename, so that no other process ever reads half of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(hashlib.sha256(model).digest() + model)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    path = checkpoint.folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"embedding.dir: cannot read {path}: there is no such file")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
