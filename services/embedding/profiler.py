"""Texts to vectors and profiles through the cache; what is not in it goes to the batcher."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from services.embedding.batcher import Batcher
from services.embedding.core.profile import Head, Profile, profiles
from services.embedding.encoded import Encoded
from services.embedding.instruments import TEXTS
from services.embedding.lru import Lru

_INLINE_TEXTS = 4
"""More new profiles at once are computed in a thread, so that other calls go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """A text's profile and the vector that it was made from."""

    profile: Profile
    encoded: Encoded


class Profiler:
    """Caches by the text's hash, so that a long text takes no more room than a short one."""

    def __init__(self, batcher: Batcher, head: Head, *, cache_entries: int) -> None:
        self._batcher, self._head = batcher, head
        self._encoded: Lru[bytes, Encoded] = Lru(cache_entries)
        self._profiles: Lru[bytes, Profile] = Lru(cache_entries)

    async def embed(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode *texts*, in order."""
        return await self._encode(texts, "Embed")

    async def profile(self, texts: Sequence[str]) -> list[Profiled]:
        """Profile *texts*, in order; before embeddings in the queue, as a request waits for it."""
        encoded = await self._encode(texts, "Profile")
        keys = [_key(text) for text in texts]
        found = [self._profiles.get(key) for key in keys]
        missing = [i for i, profile in enumerate(found) if profile is None]
        for i, profile in zip(missing, await self._made(texts, encoded, missing), strict=True):
            found[i] = profile
            self._profiles.put(keys[i], profile)
        return [
            Profiled(profile=profile, encoded=one)
            for profile, one in zip(found, encoded, strict=True)
            if profile is not None
        ]

    async def _encode(self, texts: Sequence[str], rpc: str) -> list[Encoded]:
        keys = [_key(text) for text in texts]
        found = {key: one for key in keys if (one := self._encoded.get(key))}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        TEXTS.labels(rpc, "yes").inc(len(texts) - len(missing))
        TEXTS.labels(rpc, "no").inc(len(missing))
        new = await self._batcher.encode(list(missing.values()), urgent=rpc == "Profile")
        for key, one in zip(missing, new, strict=True):
            found[key] = one
            self._encoded.put(key, one)
        return [found[key] for key in keys]

    async def _made(
        self, texts: Sequence[str], encoded: Sequence[Encoded], which: Sequence[int]
    ) -> list[Profile]:
        if not which:
            return []
        chosen = [texts[i] for i in which]
        vectors = np.stack([encoded[i].vector for i in which])
        if len(which) <= _INLINE_TEXTS:
            return profiles(chosen, vectors, self._head)
        return await asyncio.to_thread(profiles, chosen, vectors, self._head)


def _key(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
