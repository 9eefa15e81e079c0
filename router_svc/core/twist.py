"""How one call of a plan differs from what the caller asked."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Twist:
    """How a call differs from what the caller asked."""

    sample: int = 0
    """From 1 on: another answer than the likeliest, a different one for each number."""
    draft: str = ""
    """An answer to be reviewed."""
    logprobs: bool = False
    """Log-probabilities are wanted, whether the caller wants them or not."""


AS_ASKED: Final = Twist()
