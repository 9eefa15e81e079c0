"""What a demo's results amount to."""

import pytest

from zeta_client.cli.tally import (
    Result,
    accuracy,
    captured,
    figures,
    oracle,
    standing,
    summary,
)


def results(verdicts: str, model: str = "a", ttft_s: float = 0.1) -> list[Result]:
    """Return an answer per letter of *verdicts*: r right, w wrong."""
    return [
        Result(
            right=verdict == "r",
            plan=f"single({model})",
            model=model,
            ttft_s=ttft_s,
            total_s=2 * ttft_s,
            tokens=10,
        )
        for verdict in verdicts
    ]


def test_oracle_takes_whoever_is_right() -> None:
    """A prompt counts for the oracle when any model alone gets it right."""
    assert oracle({"a": results("rwww"), "b": results("wrww")}) == 0.5


@pytest.mark.parametrize(
    ("routed", "best", "most", "share"),
    [(0.8, 0.6, 0.9, 2 / 3), (0.5, 0.6, 0.9, -1 / 3), (0.6, 0.6, 0.6, 1.0), (0.5, 0.6, 0.6, 0.0)],
)
def test_captured_share(routed: float, best: float, most: float, share: float) -> None:
    """The share is 0 at the best single model, 1 at the oracle, and negative below."""
    assert captured(routed, best, most) == pytest.approx(share)


def test_standing_compares_on_the_same_prompts() -> None:
    """Best single is the better of the models, not their mean."""
    found = standing(results("rrrw"), {"a": results("rrww"), "b": results("wwrw")})

    assert found == {"routed": 0.75, "best_single": 0.5, "oracle": 0.75, "captured": 1.0}


def test_summary_has_the_promised_keys() -> None:
    """Scripts find the keys that the command line promises, for every model."""
    routed = [*results("rw", "a"), *results("r", "b", ttft_s=0.3)]
    singles = {"a": results("rww"), "b": results("wwr"), "never asked": results("www")}
    found = summary(routed, singles)

    assert found["prompts"] == 3
    assert found["accuracy"] == {
        "routed": pytest.approx(2 / 3),
        "a": pytest.approx(1 / 3),
        "b": pytest.approx(1 / 3),
        "never asked": 0.0,
        "oracle": pytest.approx(2 / 3),
    }
    assert found["ttft_s"]["p50"] == pytest.approx(0.1)
    assert {name: of_model["answers"] for name, of_model in found["by_model"].items()} == {
        "a": 2,
        "b": 1,
        "never asked": 0,
    }
    assert found["by_model"]["never asked"]["alone"]["answers"] == 3
    assert found["by_plan"]["single(a)"]["accuracy"] == 0.5


def test_last_third_is_the_last_prompts() -> None:
    """Only the last third of the prompts counts for the last third, in every column."""
    found = summary(results("wwwwrr"), {"a": results("rrrrwr"), "b": results("rrrrrw")})

    assert found["last_third"] == {
        "routed": 1.0,
        "best_single": 0.5,
        "oracle": 1.0,
        "captured": 1.0,
    }


def test_figures_weigh_tokens_by_time() -> None:
    """Tokens per second are all tokens over all the time, not a mean of rates."""
    found = figures([*results("r", ttft_s=0.1), *results("w", ttft_s=0.9)])

    assert found["tokens_per_s"] == pytest.approx(20 / 2.0)
    assert found["ttft_p50_s"] == pytest.approx(0.5)


def test_accuracy_of_nothing_is_nothing() -> None:
    """No answers are not right answers."""
    assert accuracy([]) == 0.0
