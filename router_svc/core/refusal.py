"""Who is refused for want of room, and whether a place later is worth a promise."""

from collections.abc import Callable, Sequence

from router_svc.core.decide import DeadlineError


def refused(
    late: DeadlineError, kept: Callable[[], object], models: Sequence[str]
) -> tuple[DeadlineError, int]:
    """Return why a request is refused, and at which of *models* it lacks a place; -1: at none.

    *kept* decides as if a place were kept for it, and raises DeadlineError where that would not
    help: then that is why, and the request is not told to come back for a place.
    """
    if late.wait_s <= 0.0:
        return late, -1
    try:
        kept()
    except DeadlineError as anyway:
        return anyway, -1
    return late, models.index(late.model)
