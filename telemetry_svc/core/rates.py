"""Rates from two readings of counters that only grow, until their process starts again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A process's totals at one moment."""

    completion_tokens: int
    prompt_tokens: int
    requests: int
    busy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Figures over one interval."""

    completion_tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    requests_per_s: float = 0.0
    busy_ratio: float = 0.0


def rates(before: Counters, after: Counters, elapsed_s: float) -> Rates:
    """Return the rates over *elapsed_s* > 0 seconds.

    A counter that fell started again from zero: what it shows now was done since.
    """

    def grown(start: float, end: float) -> float:
        return (end - start if end >= start else end) / elapsed_s

    return Rates(
        completion_tokens_per_s=grown(before.completion_tokens, after.completion_tokens),
        prompt_tokens_per_s=grown(before.prompt_tokens, after.prompt_tokens),
        requests_per_s=grown(before.requests, after.requests),
        busy_ratio=min(1.0, grown(before.busy_s, after.busy_s)),
    )
