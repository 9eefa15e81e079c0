"""Off-policy estimates against the truth of simulated logs."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.offpolicy import Estimate, Logged, evaluate

ARMS = 3


def simulated(rng: np.random.Generator, count: int, *, bias: float) -> tuple[Logged, float]:
    """Log *count* prompts of three models under one policy; return also another one's true mean.

    Predictions are off by *bias*. The log prefers the first model, the other policy the best.
    """
    truth = rng.beta(0.5, 0.5, (count, ARMS))
    logging = np.tile([0.6, 0.2, 0.2], (count, 1))
    other = np.full((count, ARMS), 0.05)
    other[np.arange(count), truth.argmax(axis=1)] = 0.9
    arm = np.array([rng.choice(ARMS, p=p) for p in logging])
    row = np.arange(count)
    predicted = truth + bias
    found = Logged(
        score=(rng.random(count) < truth[row, arm]).astype(np.float64),
        weight=other[row, arm] / logging[row, arm],
        expected=predicted[row, arm],
        other_expected=(other * predicted).sum(axis=1),
        support=np.ones(count),
    )
    return found, float((other * truth).sum(axis=1).mean())


@pytest.mark.parametrize("bias", [0.0, -0.3])
def test_intervals_cover_the_truth_as_often_as_they_say(bias: float) -> None:
    """Over 400 logs about 95 %, and estimates are right on average, also with wrong predictions."""
    rng = np.random.default_rng(5)
    covered, errors = {"ips": 0, "snips": 0, "dr": 0}, {"ips": 0.0, "snips": 0.0, "dr": 0.0}
    for _ in range(400):
        log, truth = simulated(rng, 300, bias=bias)
        found = evaluate(log)
        for name in covered:
            each: Estimate = getattr(found, name)
            covered[name] += each.low <= truth <= each.high
            errors[name] += (each.value - truth) / 400
    for name, count in covered.items():
        assert 0.92 <= count / 400 <= 1.0, name
        assert abs(errors[name]) < 0.01, name


def test_good_predictions_make_doubly_robust_the_sharpest() -> None:
    """Its interval is the narrowest, and with bad ones still no lie."""
    log, _ = simulated(np.random.default_rng(2), 2000, bias=0.0)
    found = evaluate(log)
    assert found.dr.high - found.dr.low < found.snips.high - found.snips.low
    assert found.snips.high - found.snips.low < found.ips.high - found.ips.low


def test_the_same_policy_is_what_was_logged() -> None:
    """With weights of one all estimates are the mean score."""
    log, _ = simulated(np.random.default_rng(2), 200, bias=0.1)
    found = evaluate(replace(log, weight=np.ones(200), other_expected=log.expected))
    for each in (found.ips, found.snips, found.dr):
        assert each.value == pytest.approx(log.score.mean())
        assert each.low == pytest.approx(found.logged.low, abs=1e-3)
    assert found.effective == pytest.approx(200.0)
    assert found.warnings == ()


def test_poor_overlap_is_said() -> None:
    """Few that count, choices that were never possible, one that decides all."""
    log, _ = simulated(np.random.default_rng(2), 200, bias=0.0)
    heavy = np.where(np.arange(200) == 0, 500.0, 1.0)
    found = evaluate(replace(log, weight=heavy, support=np.full(200, 0.5)))
    assert [w for w in found.warnings if "say as much as" in w]
    assert [w for w in found.warnings if "50% of the policy's choices" in w]
    assert [w for w in found.warnings if "one decision carries" in w]


def test_nothing_overlaps_at_all() -> None:
    """The estimates stay numbers, and their bounds say that nothing is known."""
    log, _ = simulated(np.random.default_rng(2), 60, bias=0.0)
    found = evaluate(replace(log, weight=np.zeros(60)))
    assert found.snips.low == -np.inf
    assert found.effective == 0.0
    assert found.dr.value == pytest.approx(log.other_expected.mean())


def test_one_decision_says_little_and_none_nothing() -> None:
    """Its interval is everything; an empty log is refused."""
    log, _ = simulated(np.random.default_rng(2), 1, bias=0.0)
    assert evaluate(log).ips.high == np.inf
    empty = Logged(**{name: np.zeros(0) for name in Logged.__dataclass_fields__})
    with pytest.raises(ValueError, match="no decision has a score"):
        evaluate(empty)
