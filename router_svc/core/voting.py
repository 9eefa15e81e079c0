"""What answers of several models are worth together: the vote's weights and its chances.

The models are taken to fail together with the correlation that `agreement` learned, and wrong
answers to scatter over about `_ALTERNATIVES` answers, so that they rarely outvote a right one.
"""

from collections.abc import Sequence
from itertools import combinations
from math import log, prod
from typing import Final

from router_svc.core.clip import clipped

_ALTERNATIVES: Final = 5


def vote_weight(quality: float) -> float:
    """Weigh an answer by the log-likelihood ratio of being right; never below a little.

    Of an answer that is right with probability q, and otherwise one of A - 1 equally likely
    wrong ones, the optimal weight is log(q (A - 1) / (1 - q)) (Nitzan and Paroush, 1982).
    """
    q = clipped(quality, 0.01, 0.99)
    return max(log(q * (_ALTERNATIVES - 1) / (1.0 - q)), 0.01)


def vote_quality(
    qualities: Sequence[float], together: float, weights: Sequence[float] = ()
) -> float:
    """Probability that the weighted vote of models right with *qualities* is right.

    Between independent models and models that all fail together, by the correlation *together*.
    *weights* are those of *qualities* by `vote_weight`, where they are known already.
    """
    qualities = sorted(qualities, reverse=True)
    weights = sorted(weights or map(vote_weight, qualities), reverse=True)
    best = qualities[0]
    return best + (1.0 - together) * (_apart(qualities, weights) - best)


def surest(confidences: Sequence[Sequence[float]], together: float) -> float:
    """Probability that the answer whose model is surest is right.

    *confidences*, by model: equally likely calibrated ones that its answer may have, ascending and
    as many of each. Between independent models, and models that are sure of the same prompts,
    by the correlation *together*.
    """
    count = len(confidences[0])
    alike: float = sum([max(each) for each in zip(*confidences, strict=True)]) / count
    # E max = 1 - ∫ Π Fᵢ, which is constant between two neighbouring confidences.
    below, left, apart = [0] * len(confidences), 0.0, 1.0
    for value, i in sorted((v, i) for i, each in enumerate(confidences) for v in each):
        apart -= (value - left) * prod([b / count for b in below])
        below[i] += 1
        left = value
    apart -= 1.0 - left
    return alike + (1.0 - together) * (apart - alike)


def some_right(qualities: Sequence[float], together: float) -> float:
    """Probability that at least one of models right with *qualities* is right."""
    none_apart = prod([1.0 - q for q in qualities])
    return 1.0 - ((1.0 - together) * none_apart + together * (1.0 - max(qualities)))


def correlation(agreement: Sequence[Sequence[float]], members: Sequence[int]) -> float:
    """Return the mean of *agreement* (N, N) between *members*, at least 0."""
    between = [agreement[i][j] for i, j in combinations(members, 2)]
    return clipped(sum(between) / len(between), 0.0, 1.0)


def _apart(qualities: Sequence[float], weights: Sequence[float]) -> float:
    """Probability that the vote of independent models is right, the best model first.

    Wrong answers differ, so that the right one needs more weight than any single wrong one. The
    best model wins alone unless the next weighs as much; without it, the others have to outweigh
    it together.
    """
    first, rest = qualities[0], qualities[1:]
    alone = 1.0 if weights[0] > weights[1] else 1.0 - prod([1.0 - q for q in rest])
    return first * alone + (1.0 - first) * _outweigh(rest, weights[1:], weights[0])


def _outweigh(qualities: Sequence[float], weights: Sequence[float], more_than: float) -> float:
    """Probability that those who are right weigh more than *more_than*; the heaviest first."""
    most = sum(weights)
    if more_than < 0.0 or most <= more_than:
        return float(more_than < 0.0)
    if most - weights[-1] <= more_than:
        return prod(qualities)
    first, rest, others = qualities[0], qualities[1:], weights[1:]
    with_it = _outweigh(rest, others, more_than - weights[0])
    return first * with_it + (1.0 - first) * _outweigh(rest, others, more_than)
