"""Counters and sketches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.model.state import GROWTH, State, Times, bucket


@given(st.floats(1e-6, 1e4))
def test_a_duration_is_in_its_bucket(duration_s: float) -> None:
    """Bucket i holds (1.1^(i-1), 1.1^i] microseconds, up to rounding."""
    index, micros = bucket(duration_s), duration_s * 1e6
    assert micros <= GROWTH**index * (1 + 1e-7)
    assert index == 0 or micros > GROWTH ** (index - 1) * (1 - 1e-7)


@pytest.mark.parametrize(("micros", "index"), [(0.0, 0), (0.5, 0), (1.0, 0), (1.1, 1), (1.21, 2)])
def test_bucket_edges(micros: float, index: int) -> None:
    """Upper edges belong to their bucket; nothing is below bucket 0."""
    assert bucket(micros / 1e6) == index


def test_an_answer_counts_for_its_kind_of_task() -> None:
    """Time per token is that of the tokens after the first."""
    state = State()
    state.answered(2, tokens=5, times=Times(began_s=0.1, first_s=0.2, last_s=0.6))
    stats = state.tasks[2]
    assert (stats.requests, stats.completion_tokens) == (1, 5)
    assert stats.ttft.counts == {bucket(0.2): 1}
    assert stats.tpot.counts == {bucket(0.1): 1}
    assert stats.tpot.sum_s == pytest.approx(0.1)


def test_one_token_has_no_time_per_token() -> None:
    """There is nothing after the first."""
    state = State()
    state.answered(0, tokens=1, times=Times(began_s=0.0, first_s=0.2, last_s=0.2))
    assert not state.tasks[0].tpot.counts


def step(state: State, now_s: float, took_s: float, *, decoded: bool = True) -> None:
    """Count a step."""
    state.stepped(prompt_tokens=3, generated=2, decoded=decoded, took_s=took_s, now_s=now_s)


def test_step_time_is_the_mean_of_the_last_second() -> None:
    """Older steps, and steps that decoded nothing, do not count; without any there is none."""
    state = State()
    assert state.step_time_s(0.0) is None
    step(state, 0.5, 0.9)
    step(state, 1.6, 0.1)
    step(state, 1.7, 0.3)
    step(state, 1.8, 5.0, decoded=False)
    assert state.step_time_s(2.0) == pytest.approx(0.2)
    assert state.step_time_s(3.0) is None
    assert state.totals.steps == 4
    assert state.totals.busy_s == pytest.approx(6.3)
    assert (state.totals.prompt_tokens, state.totals.completion_tokens) == (12, 8)


def test_a_slot_is_expected_after_a_share_of_the_usual_service_time() -> None:
    """Ten running requests of two seconds end every fifth of a second."""
    state = State()
    assert state.free_slot_in_s(10) == 1.0
    state.answered(0, tokens=1, times=Times(began_s=1.0, first_s=3.0, last_s=3.0))
    assert state.free_slot_in_s(10) == pytest.approx(0.2)
