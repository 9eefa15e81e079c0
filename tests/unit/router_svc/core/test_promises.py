"""When to come back."""

import numpy as np
import pytest

from router_svc.core.promises import Promises


def made(promises: Promises, key: int, now_s: float = 0.0) -> float:
    """Promise a place of the second of two models, busy for a second, with a place every two."""
    return promises.make(key, 1, wait_s=1.0, pace_s=2.0, now_s=now_s)


def owed(promises: Promises, now_s: float, until_s: float) -> list[float]:
    """Places to keep free."""
    return [float(n) for n in promises.owed(now_s, np.full(2, until_s))]


def test_places_are_promised_one_after_the_other() -> None:
    """Behind what waits, two of five as they come free, each model's apart."""
    promises = Promises(2)
    assert [made(promises, key) for key in range(3)] == pytest.approx([6.0, 11.0, 16.0])
    assert promises.make(9, 0, wait_s=0.0, pace_s=0.1, now_s=0.0) == pytest.approx(0.25)


def test_a_promise_holds_from_its_time_on_for_a_while_and_once() -> None:
    """Not before; what was asked is what is known again."""
    promises = Promises(2)
    at_s = made(promises, 5)
    assert promises.keep(5, at_s - 0.1) is None
    assert promises.keep(6, at_s) is None
    assert promises.due(5, at_s)
    assert promises.keep(5, at_s + 1.0) == at_s
    assert promises.keep(5, at_s + 1.0) is None
    made(promises, 5, now_s=100.0)
    assert promises.keep(5, 200.0) is None


def test_who_asks_the_same_has_a_promise_each() -> None:
    """Both places are kept free, and each is there when it was said."""
    promises = Promises(2)
    first, second = made(promises, 5), made(promises, 5)
    assert owed(promises, 0.0, second) == [0.0, 2.0]
    assert promises.keep(5, first) == first
    assert promises.open(5, first)
    assert promises.keep(5, first) is None
    assert promises.keep(5, second) == second
    assert not promises.open(5, second)


def test_a_refusal_is_remembered_until_its_time_has_passed() -> None:
    """Whoever comes sooner than told was seen already, too."""
    promises = Promises(2)
    at_s = made(promises, 5)
    assert promises.open(5, 0.0)
    assert promises.open(5, at_s + 10.0)
    assert not promises.open(5, at_s + 10.1)
    assert not promises.open(6, 0.0)
    promises.keep(5, at_s)
    assert not promises.open(5, at_s)


def test_the_place_is_kept_free_until_it_is_claimed() -> None:
    """And no longer than a moment after its time."""
    promises = Promises(2)
    first, second = made(promises, 1), made(promises, 2)
    assert owed(promises, 0.0, first) == [0.0, 1.0]
    assert owed(promises, 0.0, second) == [0.0, 2.0]
    promises.keep(1, first)
    assert owed(promises, first, second) == [0.0, 1.0]
    assert owed(promises, second + 1.0, second + 9.0) == [0.0, 0.0]


def test_nothing_is_kept_free_where_nobody_comes_back() -> None:
    """After a few dozen promises that were not claimed; whoever comes then has it sooner."""
    promises, now_s = Promises(2), 0.0
    for key in range(60):
        now_s += made(promises, key, now_s) + 1.0
        owed(promises, now_s, now_s)
    after_s = made(promises, 99, now_s)
    assert owed(promises, now_s, now_s + after_s)[1] < 0.1
    assert after_s < 1.5


def test_what_is_remembered_is_bounded() -> None:
    """The latest promises, and none further off than five minutes."""
    promises = Promises(2)
    times_s = [made(promises, key) for key in range(20_000)]
    assert max(times_s) == pytest.approx(300.0)
    assert not promises.due(0, times_s[0])
    assert promises.due(19_999, 300.0)
