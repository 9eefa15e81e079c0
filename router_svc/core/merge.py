"""Count the votes of several answers; equal are those that `answer.normalised` makes equal."""

from collections.abc import Mapping, Sequence

from router_svc.core.answer import normalised


def tally(answers: Mapping[int, str], weights: Sequence[float]) -> dict[str, list[int]]:
    """Group voters by answer, heaviest group first, each group's heaviest voter first.

    *answers*: voter to text, of those that have answered; *weights* of all voters.
    """
    groups: dict[str, list[int]] = {}
    for voter in sorted(answers, key=lambda v: (-weights[v], v)):
        groups.setdefault(normalised(answers[voter]), []).append(voter)
    return dict(sorted(groups.items(), key=lambda g: -sum(weights[v] for v in g[1])))


def decided(answers: Mapping[int, str], weights: Sequence[float], pending: Sequence[int]) -> bool:
    """Whether the voters still *pending* cannot change who wins, even if they all agree."""
    if not pending:
        return True
    sums = [sum(weights[v] for v in group) for group in tally(answers, weights).values()]
    if not sums:
        return False
    runner_up = sums[1] if len(sums) > 1 else 0.0
    return sums[0] > runner_up + sum(weights[v] for v in pending)
