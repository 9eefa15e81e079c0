"""What answers of several models are worth together: the vote's weights and its chances.

The models are taken to fail together with the correlation that `agreement` learned, and wrong
answers to scatter over about `_ALTERNATIVES` answers, so that they rarely outvote a right one.
What is known of a group follows from the same of the groups that lack one of its members, so all
groups of some models are walked once, the smaller ones first. P = models, L = levels of confidence,
G = groups: nobody, every model alone, then every larger one.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, combinations
from math import log, prod
from operator import add, truediv
from typing import Final

from router_svc.core.clip import clipped

_ALTERNATIVES: Final = 5


class Group:
    """Some models. A plain class, and nobody changes it: what a compiler makes fast."""

    __slots__ = ("edges", "members", "pairs", "rest", "tail")

    def __init__(
        self,
        members: tuple[int, ...],
        rest: int,
        tail: int,
        edges: tuple[int, int, int],
    ) -> None:
        self.members = members
        """Their numbers, ascending."""
        self.rest = rest
        """The number of the group without its last member, `tail`."""
        self.tail = tail
        self.edges = edges
        """The numbers of the groups without the last, the first, and both; of itself if alone."""
        self.pairs = len(members) * (len(members) - 1) // 2


class Groups:
    """Every group of up to so many of P models, the smaller ones first, nobody the very first."""

    __slots__ = ("groups", "having")

    def __init__(
        self, groups: tuple[Group, ...], having: tuple[tuple[tuple[int, int], ...], ...]
    ) -> None:
        self.groups = groups
        """(G - 1,) All but nobody."""
        self.having = having
        """(P,) The groups that have a model, each with its number and its number without that."""


@lru_cache(maxsize=64)
def groups(models: int, most: int) -> Groups:
    """Return every group of up to *most* of so many *models*."""
    found = [each for size in range(most + 1) for each in combinations(range(models), size)]
    number = {members: i for i, members in enumerate(found)}
    having: list[list[tuple[int, int]]] = [[] for _ in range(models)]
    for i, members in enumerate(found):
        for model in members:
            having[model].append((i, number[tuple([m for m in members if m != model])]))
    return Groups(
        tuple(
            [
                Group(m, number[m[:-1]], m[-1], (number[m[:-1]], number[m[1:]], number[m[1:-1]]))
                for m in found[1:]
            ]
        ),
        tuple([tuple(each) for each in having]),
    )


def vote_weight(quality: float) -> float:
    """Weigh an answer by the log-likelihood ratio of being right; never below a little.

    Of an answer that is right with probability q, and otherwise one of A - 1 equally likely
    wrong ones, the optimal weight is log(q (A - 1) / (1 - q)) (Nitzan and Paroush, 1982).
    """
    q = clipped(quality, 0.01, 0.99)
    weight = log(q * (_ALTERNATIVES - 1) / (1.0 - q))
    return weight if weight > 0.01 else 0.01  # noqa: FURB136, PLR2004 - dozens a decision


def vote_quality(qualities: Sequence[float], together: float) -> float:
    """Probability that the weighted vote of models right with *qualities* is right.

    Between independent models and models that all fail together, by the correlation *together*.
    """
    ordered = sorted(qualities, reverse=True)
    apart = outweighing(ordered, [vote_weight(q) for q in ordered])
    return ordered[0] + (1.0 - together) * (apart - ordered[0])


def outweighing(quality: Sequence[float], weight: Sequence[float]) -> float:
    """Probability that the vote of independent models is right; *quality*, *weight* descending.

    Wrong answers differ, so that the right one needs more weight than any single wrong one. The
    best model wins alone unless the next weighs as much; without it, others have to outweigh it
    together.
    """
    best, most = quality[0], weight[0]
    found = best + (1.0 - best) * _heavier(quality, weight, 1, most)
    if weight[1] >= most:
        found -= best * prod([1.0 - q for q in quality[1:]])
    return found


def _heavier(quality: Sequence[float], weight: Sequence[float], first: int, most: float) -> float:
    """Probability that those from the *first* on that are right weigh more than *most*."""
    if most < 0.0:
        return 1.0
    if first == len(quality):
        return 0.0
    q = quality[first]
    right = _heavier(quality, weight, first + 1, most - weight[first])
    return right * q + (1.0 - q) * _heavier(quality, weight, first + 1, most)


def surest(levels: Sequence[Sequence[float]], among: Groups) -> tuple[list[float], list[float]]:
    """Probability that the answer is right whose model, of each of some groups, is surest; (G,).

    *levels* (P, L) are equally likely calibrated confidences of each model, ascending. Whoever is
    surest is right with that confidence: so the expectation of the highest of each group. First of
    independent models, then of models that are sure of the same prompts.
    """
    return _apart(levels, among), _in_step(levels, among)


def _apart(levels: Sequence[Sequence[float]], among: Groups) -> list[float]:
    """Return the mean of the highest over every combination of each group's levels; (G,)."""
    count, flat = len(levels[0]), [*chain.from_iterable(levels)]
    # Of each group: how many combinations lie below the level that is looked at, and their sum.
    below = [0.0] * (len(among.groups) + 1)
    total = [0.0] * len(below)
    below[0] = 1.0
    for each in sorted(range(len(flat)), key=flat.__getitem__):
        level = flat[each]
        for i, rest in among.having[each // count]:
            more = below[rest]
            below[i] += more
            total[i] += more * level
    # By now all combinations of a group are below.
    return [*map(truediv, total, below)]


def _in_step(levels: Sequence[Sequence[float]], among: Groups) -> list[float]:
    """Return the mean of the highest where each group's models are at the same level; (G,)."""
    count = len(levels[0])
    total = [0.0] * (len(among.groups) + 1)
    for place in range(count):
        row = [each[place] for each in levels]
        highest = [0.0]
        for group in among.groups:
            one, others = row[group.tail], highest[group.rest]
            highest.append(one if one > others else others)  # noqa: FURB136 - dozens a decision
        total = [*map(add, total, highest)]
    return [each / count for each in total]


def correlations(agreement: Sequence[Sequence[float]], among: Groups) -> list[float]:
    """Return the mean of *agreement* (P, P) between the members of each group, at least 0; (G,).

    The pairs of a group are those without its last member and those without its first, less those
    that are in both, and the two.
    """
    sums, found = [0.0], [0.0]
    for group in among.groups:
        if group.pairs == 0:
            between, mean = 0.0, 0.0
        else:
            last, first, both = group.edges
            between = agreement[group.members[0]][group.tail]
            between += sums[last] + sums[first] - sums[both]
            mean = between / group.pairs
        sums.append(between)
        found.append(clipped(mean, 0.0, 1.0))
    return found


def some_right(qualities: Sequence[float], together: float) -> float:
    """Probability that at least one of models right with *qualities* is right."""
    none_apart = prod([1.0 - q for q in qualities])
    return 1.0 - ((1.0 - together) * none_apart + together * (1.0 - max(qualities)))


def correlation(agreement: Sequence[Sequence[float]], members: Sequence[int]) -> float:
    """Return the mean of *agreement* (N, N) between *members*, at least 0."""
    between = [agreement[i][j] for i, j in combinations(members, 2)]
    return clipped(sum(between) / len(between), 0.0, 1.0)
