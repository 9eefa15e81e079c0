"""Rates from two readings."""

import pytest

from telemetry_svc.core.rates import Counters, rates

START = Counters(completion_tokens=100, prompt_tokens=1000, requests=10, busy_s=5.0)


def test_differences_over_time() -> None:
    """Each rate is what was added, over the seconds between."""
    end = Counters(completion_tokens=150, prompt_tokens=1200, requests=11, busy_s=5.25)

    found = rates(START, end, 0.5)

    assert found.completion_tokens_per_s == pytest.approx(100.0)
    assert found.prompt_tokens_per_s == pytest.approx(400.0)
    assert found.requests_per_s == pytest.approx(2.0)
    assert found.busy_ratio == pytest.approx(0.5)


def test_counters_of_a_new_process_count_from_zero() -> None:
    """A process that started again did what it shows, not less than nothing."""
    end = Counters(completion_tokens=20, prompt_tokens=40, requests=1, busy_s=0.1)

    found = rates(START, end, 1.0)

    assert found.completion_tokens_per_s == pytest.approx(20.0)
    assert found.requests_per_s == pytest.approx(1.0)
    assert found.busy_ratio == pytest.approx(0.1)


def test_busy_is_at_most_all_of_the_time() -> None:
    """Readings a little apart from their answers do not make a step longer than time."""
    end = Counters(completion_tokens=100, prompt_tokens=1000, requests=10, busy_s=5.2)

    assert rates(START, end, 0.1).busy_ratio == 1.0
