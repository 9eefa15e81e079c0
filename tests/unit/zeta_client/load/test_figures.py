"""Goodput counts what was answered in time, whatever else was."""

from dataclasses import replace

import pytest

from zeta_client.load.figures import Objective, summary
from zeta_client.load.send import Result

ONE = Result(
    at_s=0.0, kind="code", priority="standard", status="OK", ttft_s=0.1, total_s=0.5, tokens=5,
    model="m", plan="single(m)", right=True, late_s=0.001, decision_id="d",
)  # fmt: skip


def test_an_answer_counts_if_it_was_in_time() -> None:
    """Late, wrong and refused ones are told apart."""
    results = [
        ONE,
        replace(ONE, right=False),
        replace(ONE, total_s=2.0),
        replace(ONE, ttft_s=0.9, total_s=0.95),
        replace(ONE, status="OVERLOADED", right=None, total_s=0.01),
    ]
    found = summary(results, Objective(ttft_s=0.5, total_s=1.0), 2.0)

    assert found["good"] == 2
    assert found["answered_per_s"] == 2.0, "until the last answer came, or the run's end"
    assert found["goodput_per_s"] == 1.0
    assert found["good_ratio"] == pytest.approx(0.4)
    assert found["good_and_right_per_s"] == 0.5
    assert found["right_ratio"] == pytest.approx(0.75)
    assert found["shed"] == {"OVERLOADED": 1}
    assert found["total_s"]["p50"] == pytest.approx(0.725), "answers alone have latencies"


def test_without_limits_every_answer_is_good() -> None:
    """And none of nothing has no quantiles."""
    assert summary([replace(ONE, total_s=99.0)], Objective(), 1.0)["good"] == 1
    nothing = summary([replace(ONE, status="NO_REPLICA")], Objective(), 1.0)
    assert nothing["ttft_s"] == {"p50": None, "p90": None, "p99": None}
    assert nothing["right_ratio"] == 0.0 or nothing["right_ratio"] is None


def test_groups_add_up() -> None:
    """Kinds and classes together are all there is."""
    results = [
        ONE,
        replace(ONE, kind="general", priority="batch", tenant="t"),
        replace(ONE, priority="batch"),
    ]
    found = summary(results, Objective(), 1.0)

    assert {k: v["requests"] for k, v in found["by_kind"].items()} == {"code": 2, "general": 1}
    assert {k: v["good"] for k, v in found["by_priority"].items()} == {"batch": 2, "standard": 1}
    assert {k: v["by_model"] for k, v in found["by_tenant"].items()} == {
        "": {"m": 2},
        "t": {"m": 1},
    }
