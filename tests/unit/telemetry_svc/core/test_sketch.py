"""Latency sketches against closed forms and against the durations themselves."""

from math import ceil, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_svc.core.sketch import BUCKETS, GAMMA, Sketch, TaskTotals, joined, since, sketch

Durations = list[float]
durations = st.lists(st.floats(min_value=1e-6, max_value=3600.0), max_size=50)


def of(durations_s: Durations) -> Sketch:
    """Sketch durations as a model process does."""
    places = [max(0, ceil(log(d * 1e6) / log(GAMMA) - 1e-9)) for d in durations_s]
    distinct = sorted(set(places))
    return sketch(distinct, [places.count(p) for p in distinct], sum(durations_s))


def parts(value: Sketch) -> tuple[list[int], list[int]]:
    return value.buckets.tolist(), value.counts.tolist()


@given(durations.filter(bool), st.floats(min_value=0.0, max_value=1.0))
def test_any_quantile_is_within_ten_percent(durations_s: Durations, q: float) -> None:
    """The quantile of the sketch is that of the durations, give or take a bucket."""
    exact = sorted(durations_s)[max(1, ceil(q * len(durations_s))) - 1]

    assert of(durations_s).quantile_s(q) == pytest.approx(exact, rel=0.1)


@given(durations, durations)
def test_adding_is_sketching_together(a: Durations, b: Durations) -> None:
    """The sketch of all durations is the sum of their sketches."""
    assert parts(of(a) + of(b)) == parts(of(a + b))
    assert (of(a) + of(b)).sum_s == pytest.approx(sum(a) + sum(b))


@given(durations, durations)
def test_subtracting_undoes_adding(a: Durations, b: Durations) -> None:
    """What lies between two moments is what was added between them."""
    assert parts(of(a) + of(b) - of(b)) == parts(of(a))


def test_subtracting_never_goes_below_nothing() -> None:
    """A later moment that holds less leaves an empty sketch, not a huge one."""
    less = of([0.1]) - of([0.1, 0.1, 5.0])

    assert parts(less) == ([], [])
    assert less.sum_s == 0.0


def test_one_duration_is_every_quantile() -> None:
    """A single bucket's harmonic middle is what every quantile shows."""
    only = sketch([100], [7], 0.1)
    middle = 2 * 1.1**100 / 2.1 * 1e-6

    assert [only.quantile_s(q) for q in (0.0, 0.5, 1.0)] == pytest.approx([middle] * 3)


def test_ranks_count_from_the_smallest() -> None:
    """With counts 1, 2, 1 the median is the second duration and the maximum the fourth."""
    three = sketch([0, 10, 20], [1, 2, 1], 0.0)
    at = [2 * 1.1**i / 2.1 * 1e-6 for i in (0, 10, 20)]

    assert three.quantile_s(0.25) == pytest.approx(at[0])
    assert three.quantile_s(0.5) == pytest.approx(at[1])
    assert three.quantile_s(0.75) == pytest.approx(at[1])
    assert three.quantile_s(1.0) == pytest.approx(at[2])


def test_an_empty_sketch_has_no_quantile() -> None:
    """Nothing measured is not the same as no latency."""
    assert sketch([], [], 0.0).quantile_s(0.5) is None


@pytest.mark.parametrize(
    ("buckets", "counts", "sum_s", "complaint"),
    [
        ([1, 2], [1], 0.0, "2 buckets but 1 counts"),
        ([2, 1], [1, 1], 0.0, "ascend"),
        ([1, 1], [1, 1], 0.0, "ascend"),
        ([BUCKETS], [1], 0.0, "must be in"),
        ([1], [1], -1.0, "negative"),
        ([1], [1], float("nan"), "negative"),
    ],
)
def test_refuses_what_is_no_sketch(
    buckets: list[int], counts: list[int], sum_s: float, complaint: str
) -> None:
    """Every mistake is named."""
    with pytest.raises(ValueError, match=complaint):
        sketch(buckets, counts, sum_s)


def test_since_keeps_only_kinds_with_something_done() -> None:
    """A kind that stood still is left out, one that is new counts in full."""
    early = {1: TaskTotals(requests=2), 2: TaskTotals(requests=5)}
    late = {1: TaskTotals(requests=2), 2: TaskTotals(requests=6), 3: TaskTotals(requests=1)}

    assert {kind: t.requests for kind, t in since(late, early).items()} == {2: 1, 3: 1}


def test_joined_adds_kind_by_kind() -> None:
    """Kinds of either side are there once, with the sum of both."""
    both = joined({1: TaskTotals(requests=2)}, {1: TaskTotals(requests=3), 2: TaskTotals()})

    assert {kind: t.requests for kind, t in both.items()} == {1: 5, 2: 0}
