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


class Tally:
    """What is known of a group: see `surest`. A plain class, for its fields cost nothing."""

    __slots__ = ("alike", "apart", "below", "highest")

    def __init__(self) -> None:
        self.apart = 0.0
        """Probability that its surest answer is right, if models are sure independently."""
        self.alike = 0.0
        """The same, if they are sure of the same prompts."""
        self.below = 0.0
        """Of the combinations of its levels, how many have been walked past."""
        self.highest = 0.0
        """Of its levels at the place that is looked at."""


def surest(levels: list[list[float]], among: Groups) -> list[Tally]:
    """Tell how likely the answer is right whose model, of each of some groups, is surest; (G,).

    *levels* (P, L) are equally likely calibrated confidences of each model, ascending. Whoever is
    surest is right with that confidence: so the expectation of the highest of each group.
    """
    found = [Tally() for _ in range(len(among.groups) + 1)]
    _apart(levels, among, found)
    _in_step(levels, among, found)
    return found


def _apart(levels: list[list[float]], among: Groups, found: list[Tally]) -> None:
    """Tell the mean of the highest over every combination of each group's levels."""
    count, flat = len(levels[0]), [*chain.from_iterable(levels)]
    found[0].below = 1.0
    for each in sorted(range(len(flat)), key=flat.__getitem__):
        level = flat[each]
        for i, rest in among.having[each // count]:
            group, more = found[i], found[rest].below
            group.below += more
            group.apart += more * level
    for group in found:
        # By now all combinations are below.
        group.apart /= group.below


def _in_step(levels: list[list[float]], among: Groups, found: list[Tally]) -> None:
    """Tell the mean of the highest where each group's models are at the same level."""
    count = len(levels[0])
    for place in range(count):
        row = [each[place] for each in levels]
        for i, group in enumerate(among.groups, 1):
            one, others, mine = row[group.tail], found[group.rest].highest, found[i]
            mine.highest = one if one > others else others  # noqa: FURB136 - dozens a decision
            mine.alike += mine.highest
    for each in found:
        each.alike /= count


def correlations(agreement: list[list[float]], among: Groups) -> list[float]:
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
