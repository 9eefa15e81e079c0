"""What an outcome says about the quality of each model that took part.

The score of feedback is about the answer that the caller saw. A model whose answer was set
aside agrees with it or not: agreeing earns the same score; disagreeing with a right answer is
wrong; disagreeing with a wrong one says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from router_svc.core.merge import normalised

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
    """Whether two answers are the same, None where they are too long to tell."""
    if max(len(text), len(chosen)) > _SHORT:
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
