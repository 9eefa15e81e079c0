"""Load between reports."""

from collections.abc import Callable

import numpy as np
import pytest

from router_svc.core.load import Load
from router_svc.core.types import Priority


def load() -> Load:
    """Two replicas of four slots."""
    return Load(np.array([0, 1], dtype=np.intp), [4, 4])


def test_own_requests_count_at_once() -> None:
    """Without any report."""
    fleet = load()
    for _ in range(6):
        fleet.began(0, 10.0, 20.0, now_s=1.5)
    now = fleet.loads(1.0)
    assert now.running.tolist() == [4.0, 0.0]
    assert now.waiting.tolist() == [2.0, 0.0]
    assert now.waiting_prompt_tokens.tolist() == [60.0, 0.0]
    assert now.remaining_tokens.tolist() == [10.0, 0.0]


def test_a_report_replaces_and_what_happened_since_is_added() -> None:
    """Others' requests are seen, own ones are not counted twice."""
    fleet = load()
    fleet.began(0, 10.0, 20.0, now_s=0.5)
    fleet.reported(0, requests=3.0, prompt_tokens=30.0, max_running=8.0, read_at_s=1.0)
    assert fleet.loads(1.0).running[0] == 3.0
    fleet.began(0, 10.0, 20.0, now_s=1.5)
    assert fleet.loads(1.0).running[0] == 4.0
    assert fleet.loads(1.0).waiting_prompt_tokens[0] == 40.0
    fleet.fed(0, 10.0, now_s=1.5)
    fleet.ended(0, 20.0, now_s=1.5)
    assert fleet.loads(1.0).running[0] == 3.0
    assert fleet.loads(1.0).max_running[0] == 8.0


def test_a_report_is_as_old_as_its_reading() -> None:
    """What ended, was fed or began between its reading and its arrival is not in it."""
    fleet = load()
    fleet.began(0, 10.0, 20.0, now_s=0.5)
    fleet.began(0, 10.0, 20.0, now_s=0.8)
    fleet.fed(0, 10.0, now_s=1.1)
    fleet.ended(0, 20.0, now_s=1.2)
    fleet.reported(0, requests=2.0, prompt_tokens=20.0, max_running=8.0, read_at_s=1.0)
    assert fleet.loads(1.3).running[0] == 1.0
    assert fleet.loads(1.3).waiting_prompt_tokens[0] == 10.0
    fleet.reported(0, requests=1.0, prompt_tokens=10.0, max_running=8.0, read_at_s=1.25)
    assert fleet.loads(1.3).running[0] == 1.0


def test_where_nobody_is_left_nothing_waits_to_be_fed() -> None:
    """A model counts a waiting prompt whole, also what its cache will spare it."""
    fleet = load()
    fleet.began(0, 1.0, 20.0, now_s=0.5)
    fleet.reported(0, requests=1.0, prompt_tokens=112.0, max_running=8.0, read_at_s=1.0)
    fleet.fed(0, 1.0, now_s=1.1)
    fleet.ended(0, 20.0, now_s=1.2)
    assert fleet.loads(1.3).waiting_prompt_tokens[0] == 0.0


def test_an_old_report_says_nothing_any_more() -> None:
    """Own requests still do, and the age is told."""
    fleet = load()
    fleet.reported(0, requests=3.0, prompt_tokens=0.0, max_running=4.0, read_at_s=1.0)
    fleet.began(0, 1.0, 1.0, now_s=1.5)
    assert fleet.loads(100.0).running[0] == 1.0
    assert fleet.ages_s(3.5).tolist() == [2.5, np.inf]
    fleet.forget(0)
    assert fleet.ages_s(3.5).tolist() == [np.inf, np.inf]


def held(fleet: Load, i: int, read_at_s: float) -> None:
    """Take in a report that holds, of an agent that reads ten times a second."""
    fleet.reported(
        i, requests=3.0, prompt_tokens=0.0, max_running=4.0, read_at_s=read_at_s, held_s=0.1
    )


def test_a_report_that_holds_does_not_age() -> None:
    """While telemetry is there it is no older than its agent's readings; others age."""
    fleet = load()
    fleet.told(1.0)
    held(fleet, 0, 1.0)
    fleet.reported(1, requests=3.0, prompt_tokens=0.0, max_running=4.0, read_at_s=1.0)
    fleet.told(99.0)

    assert fleet.ages_s(100.0) == pytest.approx([0.1, 99.0])
    assert fleet.loads(100.0).running.tolist() == [3.0, 0.0]
    assert fleet.ages_s(99.0)[0] == pytest.approx(0.1)


def test_what_held_ages_when_telemetry_falls_silent_or_is_gone() -> None:
    """From its last sign of life on, and a report that begins to hold again is young again."""
    fleet = load()
    held(fleet, 0, 1.0)
    held(fleet, 1, 1.0)
    fleet.told(10.0)

    assert fleet.ages_s(11.4) == pytest.approx([0.1, 0.1])
    assert fleet.ages_s(12.0) == pytest.approx([2.1, 2.1])
    fleet.untold()
    assert fleet.ages_s(12.0) == pytest.approx([2.1, 2.1])
    fleet.told(20.0)
    held(fleet, 0, 20.0)
    assert fleet.ages_s(20.5) == pytest.approx([0.1, 10.6])


def test_load_never_becomes_negative() -> None:
    """A report that is a moment late takes nothing below what is known to run."""
    fleet = load()
    fleet.began(0, 10.0, 20.0, now_s=0.5)
    fleet.reported(0, requests=0.0, prompt_tokens=0.0, max_running=4.0, read_at_s=1.0)
    assert fleet.loads(1.0).running[0] == 1.0
    fleet.fed(0, 10.0, now_s=1.5)
    fleet.ended(0, 20.0, now_s=1.5)
    now = fleet.loads(1.0)
    assert now.running[0] == 0.0
    assert now.waiting_prompt_tokens[0] == 0.0


def test_a_replica_is_full_with_one_more_than_run_there() -> None:
    """Whoever sent them; critical requests count critical ones alone."""
    fleet = load()
    fleet.reported(1, requests=5.0, prompt_tokens=0.0, max_running=4.0, read_at_s=1.0)
    for _ in range(4):
        fleet.began(0, 1.0, 1.0, now_s=1.0)
    assert fleet.full(Priority.STANDARD, 1.0).tolist() == [False, True]
    fleet.began(0, 1.0, 1.0, now_s=1.0)
    assert fleet.full(Priority.BATCH, 1.0).tolist() == [True, True]
    assert not fleet.full(Priority.CRITICAL, 1.0).any()
    fleet.began(0, 1.0, 1.0, requests=4, now_s=1.0, critical=True)
    assert fleet.full(Priority.CRITICAL, 1.0).tolist() == [True, False]
    fleet.ended(0, 1.0, 4, now_s=1.0, critical=True)
    assert not fleet.full(Priority.CRITICAL, 1.0).any()
    assert fleet.full(Priority.STANDARD, 60.0).tolist() == [True, False]


def test_an_estimate_holds_until_something_happens() -> None:
    """Whatever that is; and not for long."""
    fleet = load()
    fleet.reported(0, requests=1.0, prompt_tokens=0.0, max_running=4.0, read_at_s=1.0, held_s=9.0)
    happenings: list[Callable[[], object]] = [
        lambda: fleet.began(0, 10.0, 20.0, now_s=2.0),
        lambda: fleet.fed(0, 10.0, now_s=2.0),
        lambda: fleet.ended(0, 20.0, now_s=2.0),
        lambda: fleet.reported(0, requests=3.0, prompt_tokens=0.0, max_running=4.0, read_at_s=2.0),
        lambda: fleet.allocated(0, 8.0),
        lambda: fleet.told(2.0),
        lambda: fleet.forget(0),
        fleet.untold,
    ]
    before = fleet.loads(2.0)
    assert fleet.loads(2.0005) is before
    assert fleet.loads(2.1) is not before
    for happens in happenings:
        before = fleet.loads(2.0)
        happens()
        assert fleet.loads(2.0) is not before
