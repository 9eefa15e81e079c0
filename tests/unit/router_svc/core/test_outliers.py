"""Who is left out for doing much worse than its peers."""

import numpy as np
import pytest

from router_svc.core.outliers import Outliers, Verdict

PEERS = np.array([0, 0, 0, 0, 1, 1])
"""Two models: four replicas, and two."""
BAD = 0


def outliers(ratio: float = 5.0) -> Outliers:
    return Outliers(PEERS, ratio)


def well(found: Outliers, now_s: float = 0.0, calls: int = 12) -> None:
    """Have everybody but the bad one answer as predicted."""
    for i in range(1, len(PEERS)):
        for _ in range(calls):
            assert found.answered(i, 1.0, now_s) is None


def slow(found: Outliers, i: int, now_s: float, times: float = 8.0) -> Verdict | None:
    """Have replica *i* be slow until it is judged, ten calls at most."""
    for _ in range(10):
        if (verdict := found.answered(i, times, now_s)) is not None:
            return verdict
    return None


def test_who_is_much_slower_is_left_out_for_a_while() -> None:
    """And named for it; then it is asked again."""
    found = outliers()
    well(found)
    verdict = slow(found, BAD, 0.0)
    assert verdict is not None
    assert verdict.out_s == 5.0
    assert verdict.why == "8.0 times slower than its peers"
    assert found.out(4.9).tolist() == [True, *[False] * 5]
    assert not found.out(5.1).any()


def test_the_time_grows_until_it_does_well() -> None:
    """Doubling, to five minutes at most; a minute of doing well forgives."""
    found, now_s, times = outliers(), 0.0, []
    well(found)
    for _ in range(9):
        verdict = slow(found, BAD, now_s)
        assert verdict is not None
        times.append(verdict.out_s)
        now_s += verdict.out_s + 1.0
    assert times == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]
    for later_s in (1.0, 61.0):
        for _ in range(40):
            found.answered(BAD, 1.0, now_s + later_s)
    again = [found.answered(BAD, 20.0, now_s + 62.0) for _ in range(20)]
    assert next(verdict for verdict in again if verdict).out_s == 5.0


def test_who_fails_now_and_then_is_left_out_too() -> None:
    """Every other call: a breaker that counts failures in a row sees nothing."""
    found = outliers()
    well(found)
    verdicts = []
    for _ in range(10):
        verdicts += [found.failed(BAD, 0.0), found.answered(BAD, 1.0, 0.0)]
    assert any(verdict and "of its calls fail" in verdict.why for verdict in verdicts)


def test_never_more_than_half_of_a_model() -> None:
    """However bad the others are; a model's only replica always stays."""
    found = outliers()
    for i in (4, 5):
        for _ in range(12):
            found.answered(i, 1.0, 0.0)
    for _ in range(12):
        found.answered(3, 1.0, 0.0)
    for i in (0, 1, 2):
        slow(found, i, 0.0, times=20.0)
        slow(found, i, 0.0, times=20.0)
    assert found.out(0.0)[:4].tolist() == [True, True, False, False]
    alone = Outliers(np.array([0]), 5.0)
    assert slow(alone, 0, 0.0, times=20.0) is None


def test_peers_that_are_as_slow_are_no_reason() -> None:
    """Under load, or where predictions are wrong, all are slow alike."""
    found = outliers()
    for _ in range(30):
        for i in range(4):
            assert found.answered(i, 15.0, 0.0) is None


def test_one_slow_call_says_little() -> None:
    """Its caller may have been slow to read."""
    found = outliers()
    well(found)
    for _ in range(20):
        found.answered(BAD, 1.0, 0.0)
    assert found.answered(BAD, 1e6, 0.0) is None


@pytest.mark.parametrize("what", ["off", "restarted"])
def test_switched_off_or_restarted(what: str) -> None:
    """Nobody is left out; the past of another process says nothing."""
    found = outliers(0.0 if what == "off" else 5.0)
    well(found)
    slow(found, BAD, 0.0)
    if what == "restarted":
        assert found.out(0.0)[BAD]
        found.restarted(BAD)
    assert not found.out(0.0).any()
