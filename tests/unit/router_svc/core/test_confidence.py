"""Confidence is sane before outcomes, calibrated after them, and prices thresholds lawfully."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_svc.core.confidence import Confidence


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(9)


@pytest.fixture
def confidence() -> Confidence:
    return Confidence(["a", "b"])


def answer(rng: np.random.Generator, quality: float) -> tuple[float, float]:
    """Draw the log-probability and the score of an answer of a model that knows when it is sure."""
    right = rng.random() < quality
    logprob = -abs(rng.normal(0.03, 0.03) if right else rng.normal(0.2, 0.15))
    return float(logprob), float(right)


def taught(rng: np.random.Generator, outcomes: int) -> Confidence:
    confidence = Confidence(["a"])
    for _ in range(outcomes):
        quality = float(rng.uniform(0.1, 0.95))
        confidence.learn("a", *_with_quality(answer(rng, quality), quality))
    return confidence


def _with_quality(drawn: tuple[float, float], quality: float) -> tuple[float, float, float]:
    return drawn[0], quality, drawn[1]


def test_follows_quality_and_sureness_before_any_outcome(confidence: Confidence) -> None:
    """Better models and surer answers are likelier right from the start."""
    usual = confidence.predict("a", -0.099, 0.7)

    assert usual == pytest.approx(0.7)
    assert confidence.predict("a", -0.02, 0.7) > usual > confidence.predict("a", -0.6, 0.7)
    assert confidence.predict("a", -0.099, 0.9) > usual


def test_is_calibrated_after_a_few_hundred_outcomes(rng: np.random.Generator) -> None:
    """Of answers given about p, a share of about p is right."""
    confidence = taught(rng, 400)
    pairs = []
    for quality in rng.uniform(0.1, 0.95, size=2000).tolist():
        logprob, score = answer(rng, quality)
        pairs.append((confidence.predict("a", logprob, quality), score))

    said, right = np.array(pairs).T
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (said >= low) & (said < low + 0.25)
        assert said[chosen].mean() == pytest.approx(right[chosen].mean(), abs=0.12)


def test_learns_that_sureness_means_nothing(rng: np.random.Generator) -> None:
    """Where log-probability does not tell right from wrong, it stops to count."""
    confidence = Confidence(["a"])
    for _ in range(500):
        confidence.learn("a", -float(rng.uniform(0.0, 0.5)), 0.6, float(rng.random() < 0.6))

    sure, unsure = confidence.predict("a", -0.02, 0.6), confidence.predict("a", -0.4, 0.6)
    assert abs(sure - unsure) < 0.15


def test_models_learn_apart(confidence: Confidence) -> None:
    """What one model's answers say leaves the other model alone."""
    before = confidence.predict("b", -0.1, 0.5)
    confidence.learn("a", -0.1, 0.5, 0.0)

    assert confidence.predict("b", -0.1, 0.5) == before
    assert confidence.predict("a", -0.1, 0.5) < before


def test_confidences_spread_as_answers_do(rng: np.random.Generator) -> None:
    """How many answers a threshold accepts, and how many of them are right, is foreseen."""
    confidence, quality, threshold = taught(rng, 600), 0.6, 0.7
    spread = np.array(confidence.spread([0], [quality])[0])
    accepted = spread >= threshold
    drawn = np.array([answer(rng, quality) for _ in range(3000)])
    sure = np.array([confidence.predict("a", lp, quality) for lp in drawn[:, 0]]) >= threshold

    assert accepted.mean() == pytest.approx(sure.mean(), abs=0.15)
    assert spread[accepted].mean() == pytest.approx(drawn[sure, 1].mean(), abs=0.15)
    assert spread[~accepted].mean() == pytest.approx(drawn[~sure, 1].mean(), abs=0.2)


ratios = st.floats(0.0, 1.0)
outcome = st.tuples(st.floats(-20.0, 0.0), ratios, ratios)


@settings(max_examples=100)
@given(st.lists(outcome, max_size=30), ratios)
def test_spreads_obey_the_law(seen: list[tuple[float, float, float]], quality: float) -> None:
    """Confidences are probabilities, ascend, and are as good on average as the model is."""
    confidence = Confidence(["a"])
    for each in seen:
        confidence.learn("a", *each)

    spread = np.array(confidence.spread([0], [quality])[0])
    assert spread.mean() == pytest.approx(quality, abs=1e-9)
    assert spread.min() >= -1e-12
    assert spread.max() <= 1.0 + 1e-12
    assert (np.diff(spread) >= 0.0).all()


@settings(max_examples=100)
@given(st.lists(outcome, max_size=30), st.floats(max_value=0.0), st.floats())
def test_never_says_nan(
    seen: list[tuple[float, float, float]], logprob: float, quality: float
) -> None:
    """Any answer, however odd its figures, gets a probability."""
    confidence = Confidence(["a"])
    for each in seen:
        confidence.learn("a", *each)

    assert 0.0 <= confidence.predict("a", logprob, quality) <= 1.0
    assert 0.0 <= confidence.predict("a", float("nan"), quality) <= 1.0


def test_a_restart_changes_nothing(rng: np.random.Generator) -> None:
    """State saved and restored answers bit for bit the same; a new model starts at the prior."""
    before = taught(rng, 40)
    again = Confidence(["new", "a"])
    again.restore(before.to_arrays())

    assert again.predict("a", -0.1, 0.6) == before.predict("a", -0.1, 0.6)
    assert again.spread([1], [0.6]) == before.spread([0], [0.6])
    assert again.predict("new", -0.1, 0.6) == Confidence(["x"]).predict("x", -0.1, 0.6)


def test_refuses_the_state_of_another_version(confidence: Confidence) -> None:
    """State of an unknown layout is refused, not guessed at."""
    with pytest.raises(ValueError, match="version 99"):
        confidence.restore({**confidence.to_arrays(), "version": np.array(99)})


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_refuses_scores_out_of_range(confidence: Confidence, score: float) -> None:
    """A score outside [0, 1] is refused."""
    with pytest.raises(ValueError, match="score"):
        confidence.learn("a", -0.1, 0.5, score)


def test_what_is_learned_counts_from_the_next_request_on() -> None:
    """Whoever was asked before says the same as one who was told all at once, and asked before."""
    model, again = Confidence(["a"]), Confidence(["a"])
    before = model.spread([0], [0.6])
    again.spread([0], [0.6])
    for score in (0.0, 1.0, 0.0):
        model.learn("a", -2.0 * score - 0.01, 0.6, score)
    again.restore(model.to_arrays())
    assert model.spread([0], [0.6]) != before
    assert model.spread([0], [0.6]) == again.spread([0], [0.6])
