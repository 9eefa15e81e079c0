"""When to come back."""

import numpy as np
import pytest

from router_svc.core.promises import Known, Promises


def known(key: int, caller: str = "") -> Known:
    """What asks *key*."""
    return Known(key=key, caller=caller)


def made(promises: Promises, key: int, now_s: float = 0.0, caller: str = "") -> float:
    """Promise a place of the second of two models, busy for a second, with a place every two."""
    return promises.make(known(key, caller), 1, wait_s=1.0, span_s=2.0, now_s=now_s)


def owed(promises: Promises, now_s: float, until_s: float) -> list[float]:
    """Places to keep free."""
    return [float(n) for n in promises.owed(now_s, np.full(2, until_s))]


def test_places_are_promised_one_after_the_other() -> None:
    """Behind what waits, at the pace at which they come free, each model's apart."""
    promises = Promises(2)
    first, second, third = (made(promises, key) for key in range(3))
    span_s = first - 1.0
    assert span_s > 2.0
    assert (second - first, third - second) == pytest.approx((span_s, span_s))
    other = promises.make(known(9), 0, wait_s=0.0, span_s=0.1, now_s=0.0)
    assert other == pytest.approx(span_s / 20.0)


def test_a_promise_holds_from_its_time_on_for_a_while_and_once() -> None:
    """Not before; what was asked is what is known again."""
    promises = Promises(2)
    at_s = made(promises, 5)
    assert promises.keep(known(5), at_s - 0.1) is None
    assert promises.keep(known(6), at_s) is None
    assert promises.due(known(5), at_s)
    assert promises.keep(known(5), at_s + 1.0) == at_s
    assert promises.keep(known(5), at_s + 1.0) is None
    made(promises, 5, now_s=100.0)
    assert promises.keep(known(5), 200.0) is None


def test_who_asks_the_same_has_a_promise_each() -> None:
    """Both places are kept free, and each is there when it was said."""
    promises = Promises(2)
    first, second = made(promises, 5), made(promises, 5)
    assert owed(promises, 0.0, second + 0.1) == [0.0, 2.0]
    assert promises.keep(known(5), first) == first
    assert promises.seen(known(5), first)
    assert promises.keep(known(5), first) is None
    assert promises.keep(known(5), second) == second
    assert not promises.seen(known(5), second)


def test_a_caller_s_name_tells_those_apart_who_ask_the_same() -> None:
    """A newcomer has nobody's place but by chance, and whoever comes has its own."""
    promises = Promises(2)
    first, second = made(promises, 5, caller="a"), made(promises, 5, caller="b")
    assert promises.seen(known(5, "b"), 0.0)
    assert not promises.seen(known(5, "c"), 0.0)
    assert promises.keep(known(5, "c"), first + 1.0) is None
    assert promises.keep(known(5, "b"), second) == second
    assert promises.keep(known(5, "a"), second) == first


def test_whom_a_proxy_names_anew_is_known_by_its_time() -> None:
    """As long as a place is kept free; later it could be anybody."""
    promises = Promises(2)
    first, second = made(promises, 5, caller="a"), made(promises, 6, caller="b")
    assert not promises.due(known(5, "c"), first - 0.1)
    assert promises.seen(known(5, "c"), first + 0.1)
    assert promises.keep(known(5, "c"), first + 0.1) == first
    assert promises.keep(known(6, "d"), second + 1.0) is None
    assert promises.keep(known(6, "b"), second + 1.0) == second


def test_a_refusal_is_remembered_until_its_time_has_passed() -> None:
    """Whoever comes sooner than told was seen already, too."""
    promises = Promises(2)
    at_s = made(promises, 5)
    assert promises.seen(known(5), 0.0)
    assert promises.seen(known(5), at_s + 10.0)
    assert not promises.seen(known(5), at_s + 10.1)
    assert not promises.seen(known(6), 0.0)
    at_s = made(promises, 5, at_s + 11.0) + at_s + 11.0
    promises.keep(known(5), at_s)
    assert not promises.seen(known(5), at_s)


def test_the_place_is_kept_free_until_it_is_claimed() -> None:
    """And no longer than a moment after its time."""
    promises = Promises(2)
    first, second = made(promises, 1), made(promises, 2)
    assert owed(promises, 0.0, first + 0.1) == [0.0, 1.0]
    assert owed(promises, 0.0, second + 0.1) == [0.0, 2.0]
    promises.keep(known(1), first)
    assert owed(promises, first, second + 0.1) == [0.0, 1.0]
    assert owed(promises, second + 1.0, second + 9.0) == [0.0, 0.0]


def test_nothing_is_kept_free_where_nobody_comes_back() -> None:
    """After a few dozen promises that were not claimed; whoever comes then has it sooner."""
    promises, now_s = Promises(2), 0.0
    for key in range(60):
        now_s += made(promises, key, now_s) + 1.0
        owed(promises, now_s, now_s)
    after_s = made(promises, 99, now_s)
    assert owed(promises, now_s, now_s + after_s + 0.1)[1] < 0.1
    assert after_s < 1.5


def test_what_a_crowd_that_is_gone_does_not_claim_is_promised_again() -> None:
    """Its first few dozen times pass, and the next one is told to come soon, before its last."""
    promises = Promises(2)
    last_s = max(promises.make(known(k), 1, wait_s=0.0, span_s=0.1, now_s=0.0) for k in range(200))
    before_s = promises.make(known(998), 1, wait_s=0.0, span_s=0.1, now_s=0.1)
    assert before_s > last_s - 1.0
    now_s = last_s / 3.0
    assert promises.make(known(999), 1, wait_s=0.0, span_s=0.1, now_s=now_s) < 1.0


def test_who_comes_late_counts_as_come() -> None:
    """As if it had come in time: late ones do not make places be promised more than once."""
    early, late, now_s = Promises(2), Promises(2), 0.0
    for promises, after_s in ((early, 0.0), (late, 5.0)):
        now_s = 0.0
        for key in range(30):
            now_s += made(promises, key, now_s) + after_s
            owed(promises, now_s, now_s)
            assert promises.keep(known(key), now_s) is not None
    assert made(late, 99, now_s) == pytest.approx(made(early, 99, now_s), rel=0.1)


def test_what_is_remembered_is_bounded() -> None:
    """The latest promises, and none further off than five minutes."""
    promises = Promises(2)
    times_s = [made(promises, key) for key in range(12_000)]
    assert max(times_s) == pytest.approx(300.0)
    assert not promises.due(known(0), times_s[0])
    assert promises.due(known(11_999), 300.0)
