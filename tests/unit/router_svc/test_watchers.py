"""Watchers."""

from functools import partial

from router_svc.watchers import Watchers


async def test_a_watcher_sees_what_comes_after_it() -> None:
    """In order."""
    watchers: Watchers[int] = Watchers()
    watchers.show(lambda: 0)
    with watchers.watching() as seen:
        watchers.show(lambda: 1)
        watchers.show(lambda: 2)
        assert await anext(seen) == (1, 0)
        assert await anext(seen) == (2, 0)


async def test_a_slow_watcher_is_told_what_it_missed() -> None:
    """The oldest are dropped, memory stays bounded."""
    watchers: Watchers[int] = Watchers()
    with watchers.watching() as seen:
        for i in range(300):
            watchers.show(partial(int, i))
        assert await anext(seen) == (44, 44)
        assert await anext(seen) == (45, 0)


def test_nothing_is_made_for_nobody() -> None:
    """Explaining a decision costs, so it is not done unwatched."""
    watchers: Watchers[int] = Watchers()
    watchers.show(lambda: 1 // 0)
