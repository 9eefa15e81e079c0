"""What an outcome says about the quality of each model that took part.

The score of feedback is about the answer that the caller saw. A model whose answer was set
aside agrees with it or not: agreeing earns the same score; disagreeing with a right answer is
wrong; disagreeing with a wrong one says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Final

from router_svc.core.answer import final, normalised

CANCELLED: Final = "cancelled"
"""The error of a call that was stopped because its answer was not needed any more."""
_SHORT: Final = 200
"""Characters up to which answers can be compared: longer ones may differ and both be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model call inside a plan, when it is over."""

    model: str
    replica: str
    part: str = "single"
    """What it did in the plan."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    ttft_s: float = 0.0
    total_s: float = 0.0
    mean_logprob: float | None = None
    chosen: bool = False
    agrees: bool | None = None
    """Whether its answer equals the one that was chosen; None where that cannot be told."""
    error: str = ""
    """Why it failed, or `CANCELLED`; empty where it answered."""


def agreement(text: str, chosen: str) -> bool | None:
    """Whether two answers are the same, None where they are too long to tell.

    Long answers that mark their results are compared by those.
    """
    marked = final(text)[1] and final(chosen)[1]
    if not marked and max(len(text), len(chosen)) > _SHORT:
        return None
    return normalised(text) == normalised(chosen)


def scores(steps: Sequence[Step], score: float) -> list[tuple[Step, float]]:
    """Return each call that the *score* in [0, 1] of the final answer says something about."""
    found = []
    for step in steps:
        if step.error:
            continue
        if step.chosen or step.agrees:
            found.append((step, score))
        elif step.agrees is False and score == 1.0:
            found.append((step, 0.0))
    return found


def joint(steps: Sequence[Step], score: float) -> list[tuple[Step, float | None]]:
    """Return each answer with its score, None where it is only known to differ from a wrong one."""
    known = scores(steps, score)
    told = [step for step, _ in known]
    differs = [
        step for step in steps if not step.error and step.agrees is False and step not in told
    ]
    return [*known, *((step, None) for step in differs if score == 0.0)]


def preferred(one: float, other: float, preference: float) -> tuple[float, float]:
    """Return what a *preference* in [0, 1] for the first of two answers says of their qualities.

    Under Bradley and Terry's model (1952) with the log-odds of quality as strength, the gradient
    of a preference's log-likelihood is its surprise: what it is above its expectation. The scores
    returned are the expected qualities moved by that, up for one and down for the other.
    """
    surprise = preference - 1.0 / (1.0 + exp(_log_odds(other) - _log_odds(one)))
    return min(max(one + surprise, 0.0), 1.0), min(max(other - surprise, 0.0), 1.0)


def _log_odds(quality: float) -> float:
    quality = min(max(quality, 0.01), 0.99)
    return log(quality / (1.0 - quality))
