"""What answers of several models are worth together: the vote's weights and its chances.

The models are taken to fail together with the correlation that `agreement` learned, and wrong
answers to scatter over about `_ALTERNATIVES` answers, so that they rarely outvote a right one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import log, prod
from operator import mul
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
    best, heaviest = qualities[0], weights[0]
    if sum(weights) - heaviest <= heaviest and weights[1] < heaviest:
        return best  # whatever the others say
    return best + (1.0 - together) * (_apart(qualities, weights) - best)


class Sureness:
    """How sure each of some models will be of its answer, and which will be the surest.

    Of each, equally likely calibrated confidences, ascending and as many of each (N, L).
    """

    __slots__ = ("_count", "_levels", "_share", "_under")

    def __init__(self, confidences: Sequence[Sequence[float]]) -> None:
        """Compare all of them, two by two, at once: each pair is in many groups."""
        self._levels, self._count = confidences, len(confidences[0])
        # Where two are as sure, the first counts as the surer, so that just one of a group does.
        self._under = [
            [
                _under(other, each, bisect_left if j < i else bisect_right)
                for j, other in enumerate(confidences)
            ]
            for i, each in enumerate(confidences)
        ]
        """[i][j][l]: probability that j is not as sure as i at its level l."""
        self._share = [
            [[*map(mul, each, under)] for under in row]
            for each, row in zip(confidences, self._under, strict=True)
        ]

    def surest(self, group: Sequence[int], together: float) -> float:
        """Probability that the answer is right whose model, of a *group*, is surest.

        Between independent models, and models that are sure of the same prompts, by the
        correlation *together*.
        """
        levels, under, share = self._levels, self._under, self._share
        most, apart = levels[group[0]], 0.0
        for i in group[1:]:
            most = [a if a > b else b for a, b in zip(most, levels[i], strict=True)]  # noqa: FURB136 - a call takes three times as long
        for i in group:
            first, *rest = [j for j in group if j != i]
            # Right and surest: its confidence, by the probability that nobody else is as sure.
            won: Iterable[float] = share[i][first]
            for j in rest:
                won = map(mul, won, under[i][j])
            apart += sum(won)
        alike: float = sum(most)
        return (alike + (1.0 - together) * (apart - alike)) / self._count


def some_right(qualities: Sequence[float], together: float) -> float:
    """Probability that at least one of models right with *qualities* is right."""
    none_apart = prod([1.0 - q for q in qualities])
    return 1.0 - ((1.0 - together) * none_apart + together * (1.0 - max(qualities)))


def correlation(agreement: Sequence[Sequence[float]], members: Sequence[int]) -> float:
    """Return the mean of *agreement* (N, N) between *members*, at least 0."""
    between = [agreement[i][j] for i, j in combinations(members, 2)]
    return clipped(sum(between) / len(between), 0.0, 1.0)


def _under(
    other: Sequence[float], each: Sequence[float], below: Callable[[Sequence[float], float], int]
) -> list[float]:
    count = len(each)
    return [below(other, sure) / count for sure in each]


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
