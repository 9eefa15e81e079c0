"""Profiles under a time box."""

import asyncio

from router_svc.core.breaker import Breaker
from router_svc.core.features import Features
from router_svc.profiler import Profiler
from tests.unit.router_svc.fixtures import ManualClock, features


class Service:
    """An embedding service that answers when it is told to."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.release = asyncio.Event()
        self.error = error

    async def __call__(self, text: str) -> Features:
        """Profile."""
        self.calls.append(text)
        await self.release.wait()
        if self.error:
            raise self.error
        return features(text)


def profiler(service: Service, *, timeout_s: float = 10.0, entries: int = 2) -> Profiler:
    """A profiler before *service*."""
    breaker = Breaker(failures=2, open_s=5.0)
    return Profiler(
        service,
        serves=lambda: True,
        timeout_s=timeout_s,
        cache_entries=entries,
        breaker=breaker,
        clock=ManualClock(),
    )


async def test_equal_prompts_share_one_call() -> None:
    """And afterwards the cache answers."""
    service = Service()
    one = profiler(service)
    both = [asyncio.create_task(one.profile("x")) for _ in range(2)]
    while not service.calls:  # noqa: ASYNC110 - nobody signals it
        await asyncio.sleep(0)
    service.release.set()
    assert [p.source for p in await asyncio.gather(*both)] == ["service", "service"]
    assert (await one.profile("x")).source == "cache"
    assert service.calls == ["x"]


async def test_a_stalled_service_costs_the_time_box_and_its_answer_is_kept() -> None:
    """Lexical first; when the call ends at last, the cache has it."""
    service = Service()
    one = profiler(service, timeout_s=0.001)
    assert (await one.profile("x")).source == "lexical"
    service.release.set()
    async with asyncio.timeout(10.0):
        while (await one.profile("x")).source != "cache":  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0)
    assert service.calls == ["x"]


async def test_a_failing_service_is_left_alone() -> None:
    """After two failures nobody calls it for a while."""
    service = Service(error=ValueError("no profile"))
    service.release.set()
    one = profiler(service)
    sources = [(await one.profile(f"text {i}")).source for i in range(4)]
    assert sources == ["lexical"] * 4
    assert len(service.calls) == 2


async def test_the_cache_forgets_what_was_not_used() -> None:
    """It holds two here."""
    service = Service()
    service.release.set()
    one = profiler(service, entries=2)
    for text in ("a", "b", "a", "c"):
        await one.profile(text)
    assert (await one.profile("a")).source == "cache"
    assert (await one.profile("b")).source == "service"


async def test_a_stall_under_load_leaves_a_bounded_number_of_calls() -> None:
    """However many prompts come; closing ends them."""
    service = Service()
    one = profiler(service, timeout_s=0.001)
    profiled = await asyncio.gather(*(one.profile(f"text {i}") for i in range(300)))
    assert {p.source for p in profiled} == {"lexical"}
    assert len(service.calls) <= 64
    await one.close()
