"""What answers of several models are worth together: the vote's weights and its chances.

The models are taken to fail together with the correlation that `agreement` learned, and wrong
answers to scatter over about `_ALTERNATIVES` answers, so that they rarely outvote a right one.
All groups of some models at once: six models make 35 groups of two or three, and one by one these
take longer than the rest of a decision. Sums, products and comparisons only, which come out the
same on every machine. P = models, L = levels of confidence, G = groups, S = models of the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import combinations
from math import log, prod
from operator import add, mul
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import ONE, ZERO, Floats, clipped, within

Ints: TypeAlias = NDArray[np.intp]

_ALTERNATIVES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """Every group of two or more of P models, the smaller ones first."""

    members: tuple[tuple[int, ...], ...]
    """(G,) Numbers of models, ascending."""
    padded: Ints
    """(S, G) The same; P, who is nobody, fills up smaller groups."""
    pairs: Ints
    """(S (S - 1) / 2, G) Every pair in a group, as its place in a table (P, P)."""
    shares: Floats
    """Of each pair in its group's mean; 0 for what fills up."""
    blocks: tuple[tuple[int, slice], ...]
    """Each size, and which groups have it."""


@lru_cache(maxsize=64)
def groups(models: int, most: int) -> Groups:
    """Return every group of two to *most* of so many *models*."""
    found = [each for size in range(2, most + 1) for each in combinations(range(models), size)]
    sizes = [len(each) for each in found]
    padded = np.array([(*each, *[models] * (most - len(each))) for each in found], dtype=np.intp)
    pairs = [[i * models + j for i, j in combinations(each, 2)] for each in found]
    widest = most * (most - 1) // 2
    shares = [[1.0 / len(each)] * len(each) + [0.0] * (widest - len(each)) for each in pairs]
    filled = [each + [0] * (widest - len(each)) for each in pairs]
    return Groups(
        members=tuple(found),
        padded=np.ascontiguousarray(padded.T),
        pairs=np.array(filled, dtype=np.intp).T.copy(),
        shares=np.array(shares).T.copy(),
        blocks=tuple(
            (size, slice(sizes.index(size), sizes.index(size) + sizes.count(size)))
            for size in range(2, most + 1)
        ),
    )


def vote_weight(quality: float) -> float:
    """Weigh an answer by the log-likelihood ratio of being right; never below a little.

    Of an answer that is right with probability q, and otherwise one of A - 1 equally likely
    wrong ones, the optimal weight is log(q (A - 1) / (1 - q)) (Nitzan and Paroush, 1982).
    """
    q = clipped(quality, 0.01, 0.99)
    return max(log(q * (_ALTERNATIVES - 1) / (1.0 - q)), 0.01)


def vote_quality(qualities: Sequence[float], together: float) -> float:
    """Probability that the weighted vote of models right with *qualities* is right.

    Between independent models and models that all fail together, by the correlation *together*.
    """
    ordered = sorted(qualities, reverse=True)
    weights = np.array([[vote_weight(q)] for q in ordered])
    apart = float(outweighing(np.array([[q] for q in ordered]), weights)[0])
    return ordered[0] + (1.0 - together) * (apart - ordered[0])


def outweighing(quality: Floats, weight: Floats) -> Floats:
    """Probability (G,) that votes of independent models are right; *quality*, *weight* (S, G).

    Both descending along S. Wrong answers differ, so that the right one needs more weight than any
    single wrong one. The best model wins alone unless the next weighs as much; without it, others
    have to outweigh it together.
    """
    best, rest, most, lesser = quality[0], [*quality[1:]], weight[0], [*weight[1:]]
    wrong = [ONE - each for each in rest]
    others = range(len(rest))
    found: Floats = best - best * reduce(mul, wrong, lesser[0] >= most)
    for size in range(2, len(rest) + 1):
        for some in combinations(others, size):
            heavier = reduce(add, [lesser[i] for i in some]) > most
            chances = [rest[i] if i in some else wrong[i] for i in others]
            found += reduce(mul, chances, heavier) * (ONE - best)
    return found


def surest(levels: Floats, among: Groups, together: Floats) -> Floats:
    """Probability that the answer is right whose model, of each of some groups, is surest; (G,).

    *levels* (P, L) are equally likely calibrated confidences of each model, ascending. Between
    independent models, and models that are sure of the same prompts, by *together* (G,). Whoever
    is surest is right with that confidence: so the expectation of the highest of each group.
    """
    (models, count), padded, flat = levels.shape, among.padded, levels.ravel()
    order = flat.argsort()
    # (P + 1, P·L) How likely each model is at most so sure; nobody always is.
    below = np.add.accumulate(_marks(models, count).take(order, 1), 1)
    below[models] = 1.0
    drop = flat.take(order)
    drop[:-1] -= drop[1:]
    apart = np.add.reduce(np.multiply.reduce(below.take(padded, 0), 0) * drop, 1)
    filled = np.zeros((models + 1, count))
    filled[:models] = levels  # nobody is never the surest
    alike = np.add.reduce(np.maximum.reduce(filled.take(padded, 0), 0), 1) / count
    found: Floats = apart + together * (alike - apart)
    return found


def correlations(agreement: Floats, among: Groups) -> Floats:
    """Return the mean of *agreement* (P, P) between the members of each group, at least 0; (G,)."""
    between = agreement.ravel().take(among.pairs) * among.shares
    return within(np.add.reduce(between, 0), ZERO, ONE)


def some_right(qualities: Sequence[float], together: float) -> float:
    """Probability that at least one of models right with *qualities* is right."""
    none_apart = prod([1.0 - q for q in qualities])
    return 1.0 - ((1.0 - together) * none_apart + together * (1.0 - max(qualities)))


def correlation(agreement: Sequence[Sequence[float]], members: Sequence[int]) -> float:
    """Return the mean of *agreement* (N, N) between *members*, at least 0."""
    between = [agreement[i][j] for i, j in combinations(members, 2)]
    return clipped(sum(between) / len(between), 0.0, 1.0)


@lru_cache(maxsize=64)
def _marks(models: int, count: int) -> Floats:
    """Return whose each of (P·L) levels is, as a share of its own ones; (P + 1, P·L)."""
    return np.repeat(np.eye(models + 1, models), count, axis=1) / count
