"""Profile a request under a strict time box, from a cache where possible; never fail one.

Equal prompts at the same time share one call. A profile that comes too late still fills the
cache. Where the embedding service keeps failing, it is left alone for a while.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import structlog

from router_svc import metrics
from router_svc.core.breaker import Breaker
from router_svc.core.features import Features, lexical_profile
from services.kit.aio import cancelled
from services.kit.metrics import of

log = structlog.get_logger()

_MAX_CALLS: Final = 64
"""Calls to the embedding service at once; beyond, the text alone has to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """A profile and where it came from: "service", "cache" or "lexical"."""

    features: Features
    source: str


class Profiler:
    """Profiles by *call*, while anybody *serves*, within *timeout_s*. Owned by the event loop."""

    def __init__(
        self,
        call: Callable[[str], Awaitable[Features]],
        *,
        serves: Callable[[], bool],
        timeout_s: float,
        cache_entries: int,
        breaker: Breaker,
        clock: Callable[[], float],
    ) -> None:
        self._call = call
        self._serves = serves
        self._timeout_s = timeout_s
        self._entries = cache_entries
        self._breaker = breaker
        self._clock = clock
        self._cache: OrderedDict[bytes, Features] = OrderedDict()
        self._calls: dict[bytes, asyncio.Task[Features | None]] = {}

    async def profile(self, text: str) -> Profiled:
        """Return the best profile of *text* that can be had within the time box."""
        profiled = await self._profile(text)
        of(metrics.PROFILES, profiled.source).inc()
        return profiled

    async def close(self) -> None:
        """Drop the calls under way."""
        for task in list(self._calls.values()):
            await cancelled(task)

    async def _profile(self, text: str) -> Profiled:
        if not text.strip():
            return Profiled(features=lexical_profile(text), source="lexical")
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if (known := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return Profiled(features=known, source="cache")
        if (task := self._calls.get(key) or self._begin(key, text)) is not None:
            # `wait` leaves the call running when the time is up: its profile fills the cache.
            await asyncio.wait({task}, timeout=self._timeout_s)
            if task.done() and not task.cancelled() and (features := task.result()) is not None:
                return Profiled(features=features, source="service")
        return Profiled(features=lexical_profile(text), source="lexical")

    def _begin(self, key: bytes, text: str) -> asyncio.Task[Features | None] | None:
        now_s, full = self._clock(), len(self._calls) >= _MAX_CALLS
        if full or not self._serves() or not self._breaker.allows(now_s):
            return None
        self._breaker.began(now_s)
        task = asyncio.get_running_loop().create_task(self._fetch(key, text))
        self._calls[key] = task
        task.add_done_callback(lambda _: self._calls.pop(key, None))
        return task

    async def _fetch(self, key: bytes, text: str) -> Features | None:
        try:
            features = await self._call(text)
        except Exception as error:  # noqa: BLE001 - a profile may fail in any way; requests go on
            was_open = self._breaker.opened_at_s is not None
            self._breaker.failed(self._clock())
            if self._breaker.opened_at_s is not None and not was_open:
                log.warning("profiler left alone", error=str(error), kind=type(error).__name__)
            return None
        self._breaker.succeeded()
        self._cache[key] = features
        if len(self._cache) > self._entries:
            self._cache.popitem(last=False)
        return features
