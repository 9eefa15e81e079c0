"""A replica's past: bounded, thinned, and its latency inside a window."""

import pytest

from telemetry_svc.core.sketch import TaskTotals, sketch
from telemetry_svc.core.window import SNAPSHOTS, History, Point


def point(i: float) -> Point:
    return Point(
        time_s=1000.0 + i,
        running=i,
        waiting=0,
        kv_ratio=0,
        completion_tokens_per_s=0,
        prompt_tokens_per_s=0,
        requests_per_s=0,
        busy_ratio=0,
    )


def filled(seconds: int, history_s: float = 10.0) -> History:
    """Make a history with one point and one finished request per second, from second 0."""
    history = History(history_s=history_s, step_s=1.0)
    for i in range(seconds):
        done = {1: TaskTotals(requests=i, ttft=sketch([i % 5], [i], 0.0) if i else EMPTY)}
        history.record(point(i), done, process=7.0, at_s=float(i))
    return history


EMPTY = sketch([], [], 0.0)


def running(points: list[Point]) -> list[float]:
    return [p.running for p in points]


def test_points_come_oldest_first() -> None:
    """What went in comes out, in order."""
    assert running(filled(4).points(now_s=3.0)) == [0, 1, 2, 3]


def test_a_quiet_replica_has_a_past_too() -> None:
    """The last point is kept again at its new time, and the window moves on over it."""
    history = filled(8)
    for i in range(8, 12):
        history.hold(1000.0 + i, at_s=float(i))

    assert [(p.time_s, p.running) for p in history.points(now_s=11.0, window_s=4.0)] == [
        *((1007.0, 7), (1008.0, 7), (1009.0, 7), (1010.0, 7), (1011.0, 7))
    ]
    assert history.tasks(now_s=11.0, window_s=3.0) == {}
    assert history.tasks(now_s=11.0, window_s=6.0)[1].requests == 2


def test_keeps_no_more_than_its_length() -> None:
    """Ten steps of history hold ten points, the newest."""
    assert running(filled(25).points(now_s=24.0)) == [*range(15, 25)]


def test_a_window_is_counted_back_from_now() -> None:
    """Only points that are young enough are there, even where nothing new came."""
    history = filled(10)

    assert running(history.points(now_s=9.0, window_s=3.0)) == [6, 7, 8, 9]
    assert running(history.points(now_s=11.5, window_s=3.0)) == [9]
    assert running(history.points(now_s=100.0)) == []


def test_a_step_thins_and_keeps_the_newest() -> None:
    """Points are at least a step apart, counted back from the newest."""
    assert running(filled(10).points(now_s=9.0, step_s=4.0)) == [1, 5, 9]
    assert running(filled(10).points(now_s=9.0, step_s=2.5)) == [0, 3, 6, 9]


def test_a_point_is_due_once_per_step() -> None:
    """Steps lie on a grid, so that late reports do not push the later ones."""
    history = History(history_s=10.0, step_s=1.0)
    assert history.due(0.3)
    history.record(point(0), {}, process=1.0, at_s=0.3)

    assert not history.due(0.9)
    assert history.due(1.0)


def test_tasks_inside_a_window_are_a_difference() -> None:
    """One request per second: a window of four seconds holds four."""
    done = filled(10).tasks(now_s=9.0, window_s=4.0)

    assert done[1].requests == 4


def test_tasks_over_a_long_window_start_with_the_first_snapshot() -> None:
    """What the replica did before it was first seen is not counted."""
    history = History(history_s=10.0, step_s=1.0)
    history.record(point(0), {1: TaskTotals(requests=100)}, process=1.0, at_s=0.0)
    history.record(point(1), {1: TaskTotals(requests=103)}, process=1.0, at_s=1.0)

    assert history.tasks(now_s=1.0)[1].requests == 3


def test_tasks_survive_a_restart_of_the_process() -> None:
    """Totals that start again from zero are added to those before."""
    history = History(history_s=10.0, step_s=1.0)
    for at_s, process, requests in ((0, 1.0, 0), (1, 1.0, 5), (2, 2.0, 0), (3, 2.0, 2)):
        totals = {1: TaskTotals(requests=requests, ttft=sketch([3], [requests], 0.0))}
        history.record(point(at_s), totals, process=process, at_s=float(at_s))

    done = history.tasks(now_s=3.0)[1]

    assert done.requests == 7
    assert done.ttft.counts.tolist() == [7]


def test_a_replica_that_fell_silent_did_nothing_since() -> None:
    """What lies before the window is not in it, though nothing came after."""
    history = History(history_s=600.0, step_s=1.0)
    for at_s in range(4):
        history.record(point(at_s), {1: TaskTotals(requests=at_s)}, process=1.0, at_s=at_s)

    assert history.tasks(now_s=100.0, window_s=60.0) == {}


def test_a_history_that_was_never_written_is_empty() -> None:
    """No point, no task."""
    history = History(history_s=10.0, step_s=1.0)

    assert history.points(now_s=5.0) == []
    assert history.tasks(now_s=5.0) == {}


def test_a_long_history_takes_snapshots_further_apart() -> None:
    """Latency in a window is exact to a 120th of what is kept, and memory stays bounded."""
    history = filled(1000, history_s=600.0)
    exact_s = 600.0 / SNAPSHOTS

    done = history.tasks(now_s=999.0, window_s=60.0)[1].requests

    assert 60 <= done <= 60 + exact_s
    assert len(history._snapshots) <= SNAPSHOTS + 1


@pytest.mark.parametrize(("history_s", "step_s"), [(0.5, 1.0), (1.0, 1.0)])
def test_the_shortest_history_holds_one_point(history_s: float, step_s: float) -> None:
    """Even a history shorter than its step shows the last moment."""
    history = History(history_s=history_s, step_s=step_s)
    history.record(point(0), {}, process=1.0, at_s=0.0)
    history.record(point(1), {}, process=1.0, at_s=1.0)

    assert running(history.points(now_s=1.0)) == [1]
