"""What is known of replicas."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from router_svc.core.filters import admitted
from router_svc.core.types import Priority
from router_svc.fleet import Fleet, Info, Lease
from services.kit.config import Router
from tests.unit.router_svc.fixtures import ManualClock, ask, models

SETTINGS = Router(breaker_failures=1, breaker_open_s=5.0)


def fleet(clock: ManualClock | None = None) -> Fleet:
    """Two models, three replicas, all healthy."""
    found = Fleet(models({"a": 2, "b": 1}), SETTINGS, clock or ManualClock())
    for name in found.names:
        found.health(name, serving=True)
    return found


def report(found: Fleet, replica: str, *, dead: bool = False, draining: bool = False) -> None:
    """Have telemetry report two requests."""
    found.reported(
        replica,
        requests=2.0,
        prompt_tokens=9.0,
        max_running=8.0,
        draining=draining,
        dead=dead,
        age_s=0.5,
    )


def test_nobody_serves_until_its_health_says_so() -> None:
    """And the first that does is told on."""
    found, calls = Fleet(models({"a": 1}), SETTINGS, ManualClock()), []
    found.changed = lambda: calls.append(1)
    assert not found.serves()
    found.health("a-0", serving=True)
    found.health("a-0", serving=True)
    assert found.serves()
    assert calls == [1]


async def test_all_who_wait_for_a_change_wait_for_the_same_one() -> None:
    """However often they look; it comes once, and the next is another."""
    found = fleet()
    first, again = found.next_change(), found.next_change()
    assert first is again
    assert not first.done()

    found.health("a-0", serving=False)
    assert first.done()
    assert not found.next_change().done()


def test_reports_reach_the_decision_with_their_age() -> None:
    """Unknown replicas are ignored."""
    clock = ManualClock()
    found = fleet(clock)
    report(found, "b-0")
    report(found, "stranger-7")
    clock.now_s += 1.0
    now = found.replicas()
    assert now.loads.running.tolist() == [0.0, 0.0, 2.0]
    assert now.loads.report_age_s[2] == 1.5
    assert now.loads.max_running.tolist() == [4.0, 4.0, 8.0]


def test_calls_of_a_process_that_hangs_are_given_up() -> None:
    """Once it has been silent for a while; what still comes from it, and other replicas', go on."""
    clock, aborted = ManualClock(), list[str]()
    found = fleet(clock)
    places = {"stuck": "a-0", "talks": "a-0", "ended": "a-0", "other": "a-1"}
    leases = {name: found.begin(replica, 3.0, 5.0) for name, replica in places.items()}
    for name, lease in leases.items():
        lease.abort = partial(aborted.append, name)
    found.end(leases["ended"])
    report(found, "a-0", dead=True)
    clock.now_s += 2.0
    leases["talks"].heard_s = clock.now_s
    assert not aborted, "a late answer to the agent is no reason yet"
    report(found, "a-0", dead=True)
    assert aborted == ["stuck"]
    report(found, "a-0")
    clock.now_s += 2.0
    report(found, "a-0", dead=True)
    assert aborted == ["stuck"], "it was well in between"


def test_a_process_that_hangs_is_not_asked() -> None:
    """Its connection lives, its agent says that it does not answer."""
    found = fleet()
    report(found, "a-0", dead=True)
    report(found, "a-1", draining=True)
    now = found.replicas()
    assert now.healthy.tolist() == [False, True, True]
    assert now.draining.tolist() == [False, True, False]
    assert found.healthy_replicas("a") == []
    report(found, "a-0")
    assert found.healthy_replicas("a") == ["a-0"]


def test_who_falls_silent_is_suspected() -> None:
    """Nobody reports on it any more, or a call that it was given says nothing."""
    clock = ManualClock()
    found = fleet(clock)
    assert found.suspects() == ["a-0", "a-1", "b-0"], "nothing was heard of anybody"
    for name in found.names:
        report(found, name)
    assert found.suspects() == []
    lease = found.begin("b-0", 3.0, 5.0)
    clock.now_s += 2.1
    for name in ("a-0", "b-0"):
        report(found, name)
    assert found.suspects() == ["a-1", "b-0"]
    lease.heard_s = clock.now_s
    found.health("a-1", serving=False)
    assert found.suspects() == [], "who is known to be gone is nobody's suspect"


def test_a_suspect_that_does_not_answer_is_out() -> None:
    """Its calls are given up as those of one that its agent says hangs; it comes back as well."""
    clock, aborted = ManualClock(), list[str]()
    found = fleet(clock)
    lease = found.begin("a-0", 3.0, 5.0)
    lease.abort = partial(aborted.append, "call")
    found.probed("a-0", answers=False)
    assert found.healthy_replicas("a") == ["a-1"]
    clock.now_s += 2.0
    report(found, "a-0")
    assert found.healthy_replicas("a") == ["a-1"], "an agent that still answers is no proof"
    assert aborted == ["call"]
    assert "a-0" in found.suspects(), "it is asked until it answers"
    found.probed("a-0", answers=True)
    assert sorted(found.healthy_replicas("a")) == ["a-0", "a-1"]


def test_what_telemetry_said_ends_with_it() -> None:
    """A replica that was called dead is asked again once nobody would say that it recovered."""
    found = fleet()
    report(found, "a-0", dead=True)
    report(found, "a-1", draining=True)
    found.reports_lost()
    assert sorted(found.healthy_replicas("a")) == ["a-0", "a-1"]


def test_a_restart_closes_the_circuit_and_forgets_the_load() -> None:
    """What was true of the old process says nothing of the new one."""
    found = fleet()
    report(found, "a-0")
    lease = found.begin("a-0", 5.0, 5.0)
    found.failed(lease)
    found.end(lease)
    assert not found.replicas().circuit_closed[0]
    found.health("a-0", serving=False)
    found.health("a-0", serving=True)
    now = found.replicas()
    assert now.circuit_closed[0]
    assert now.loads.running[0] == 0.0


def test_an_open_circuit_is_probed_by_one() -> None:
    """And closes when the probe is answered."""
    clock = ManualClock()
    found = fleet(clock)
    lease = found.begin("b-0", 5.0, 5.0)
    found.failed(lease)
    found.end(lease)
    clock.now_s += 5.0
    assert found.replicas().circuit_closed[2]
    probe = found.begin("b-0", 5.0, 5.0)
    assert not found.replicas().circuit_closed[2]
    found.succeeded(probe)
    found.end(probe)
    assert found.replicas().circuit_closed[2]


def test_who_is_much_slower_than_its_twin_is_left_out() -> None:
    """As behind an open circuit, and for a while; its twin never is, since half must stay."""
    clock = ManualClock()
    found = fleet(clock)
    for replica, slowness in (("a-1", 1.0), ("a-0", 9.0), ("a-1", 300.0)):
        for _ in range(12):
            lease = found.begin(replica, 1.0, 1.0)
            found.succeeded(lease, slowness)
            found.end(lease)
    assert found.replicas().circuit_closed.tolist() == [False, True, True]
    clock.now_s += 5.1
    assert found.replicas().circuit_closed.all()


def test_a_models_introduction_counts_for_all_its_replicas() -> None:
    """Its context, and whether it generates."""
    found = fleet()
    found.knows("a", Info(context_tokens=99, default_max_tokens=9), generates=False)
    now = found.replicas()
    assert now.context_tokens[:2].tolist() == [99.0, 99.0]
    assert now.can_generate.tolist() == [False, False, True]


def test_a_model_has_room_while_some_replica_of_it_has_a_place() -> None:
    """Four run and one waits there; who is not able does not count, nobody at all does."""
    found = Fleet(models({"m": 2, "n": 1}), Router(), ManualClock())
    for replica in ("m-0", "m-1"):
        found.health(replica, serving=True)
    leases = [found.begin("m-0", 1.0, 1.0) for _ in range(5)]
    assert found.vacancy(Priority.STANDARD).full.tolist() == [True, False, False]
    assert found.vacancy(Priority.STANDARD).room.tolist() == [True, True]
    found.health("m-1", serving=False)
    assert found.vacancy(Priority.STANDARD).room.tolist() == [False, True]
    assert found.vacancy(Priority.CRITICAL).room.tolist() == [True, True]
    critical = [found.begin("m-0", 1.0, 1.0, critical=True) for _ in range(4)]
    assert not found.vacancy(Priority.CRITICAL).room[0]
    found.end(critical[0])
    assert found.vacancy(Priority.CRITICAL).room[0]
    for lease in (*leases, *critical[1:]):
        found.end(lease)
    assert found.vacancy(Priority.STANDARD).room[0]


def test_places_come_free_at_the_pace_at_which_calls_end() -> None:
    """Four slots, calls of two seconds and one that waits: a place each half second; all heard."""
    clock, there = ManualClock(), deque[Lease]()
    found, heard = Fleet(models({"m": 1}), Router(), clock), []
    found.health("m-0", serving=True)
    found.freed = lambda: heard.append(clock.now_s)
    for _ in range(205):
        if found.crowded(Priority.STANDARD):
            found.end(there.popleft())
        there.append(found.begin("m-0", 1.0, 1.0))
        found.first_token(there[-1])
        clock.now_s += 0.5
    assert found.vacancy(Priority.STANDARD).pace_s[0] == pytest.approx(0.5, rel=0.01)
    assert len(heard) == 200


def happening(rng: np.random.Generator) -> Callable[[Fleet, ManualClock], None]:
    """Draw something that may change who serves."""
    name, yes = str(rng.choice(["a-0", "a-1", "b-0"])), bool(rng.random() < 0.6)
    passed_s, slowness = float(rng.choice([0.1, 2.0, 6.0])), float(rng.choice([1.0, 50.0]))

    def call(found: Fleet, _clock: ManualClock) -> None:
        for _ in range(12):
            lease = found.begin(name, 1.0, 1.0)
            found.succeeded(lease, slowness)
            found.end(lease)

    def fail(found: Fleet, _clock: ManualClock) -> None:
        lease = found.begin(name, 1.0, 1.0)
        found.failed(lease)
        found.end(lease)

    def wait(_found: Fleet, clock: ManualClock) -> None:
        clock.now_s += passed_s

    known = Info(context_tokens=99, default_max_tokens=9)
    happens: list[Callable[[Fleet, ManualClock], None]] = [
        *(call, fail, wait),
        lambda found, _: found.health(name, serving=yes),
        lambda found, _: report(found, name, dead=not yes),
        lambda found, _: report(found, name, draining=not yes),
        lambda found, _: found.drains(name),
        lambda found, _: found.probed(name, answers=yes),
        lambda found, _: found.reports_lost(),
        lambda found, _: found.knows(name[0], known, generates=yes),
    ]
    return happens[rng.integers(len(happens))]


@pytest.mark.parametrize("seed", range(30))
def test_who_serves_is_known_as_if_asked_for_the_first_time(seed: int) -> None:
    """Whatever happened since it was asked before; and it is what the filters say."""
    rng = np.random.default_rng(seed)
    clock, happened = ManualClock(), []
    always = fleet(clock)
    for _ in range(25):
        happened.append(happening(rng))
        happened[-1](always, clock)
        now, once_clock = always.replicas(), ManualClock()
        once = fleet(once_clock)
        for again in happened:
            again(once, once_clock)
        anew = once.replicas()
        for name in ("healthy", "draining", "circuit_closed", "can_generate", "serving"):
            assert getattr(now, name).tolist() == getattr(anew, name).tolist(), name
        looked = replace(now, serving=None)
        assert admitted(ask(), 5.0, now).tolist() == admitted(ask(), 5.0, looked).tolist()
