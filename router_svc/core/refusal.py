"""Who is refused for want of room, and whether a place later is worth a promise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router_svc.core.decide import DeadlineError


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request cannot be answered in time."""

    why: DeadlineError
    model: int = -1
    """Where it lacks a place, of the fleet's models; -1: no place would help."""
    service_s: float = 0.0
    """How long it would hold that place; 0: nobody knows."""


def refused(late: DeadlineError, kept: Callable[[], object], models: Sequence[str]) -> Refusal:
    """Return why a request is refused that is *late*, of the fleet's *models*.

    *kept* decides as if a place were kept for it, and raises DeadlineError where that would not
    help: then that is why, and the request is not told to come back for a place.
    """
    if late.wait_s <= 0.0:
        return Refusal(late)
    try:
        kept()
    except DeadlineError as anyway:
        return Refusal(anyway)
    work_s = dict(zip(late.candidates.models, late.candidates.work_s, strict=False))
    return Refusal(late, models.index(late.model), work_s.get(late.model, 0.0))
