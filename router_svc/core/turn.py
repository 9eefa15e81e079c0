"""Whose turn it is goes as it was decided when it came, if that can be had."""

from dataclasses import replace

from router_svc.core.decide import Decision
from router_svc.core.plan import Single
from router_svc.core.predict import WAIT_P90, sums
from router_svc.core.types import Bools, Candidates


def as_decided(
    decision: Decision, waited_s: float, full: Bools | None, replica: int
) -> Decision | None:
    """Return *decision* with its times from now on; None where it is to be decided anew.

    A single call can be had if its *replica* has a place (of all, R, some are *full*; None: none)
    and the wait was not longer than was thought, nine times of ten: then it is as likely in time as
    it was decided to be, and the one draw between plans stands.
    """
    if not isinstance(decision.plan, Single) or (full is not None and full[replica]):
        return None
    found = decision.candidates
    if waited_s > WAIT_P90 * found.wait_s[found.models.index(decision.plan.model)]:
        return None
    return decision.foreseen(without_wait(found))


def without_wait(candidates: Candidates) -> Candidates:
    """Return *candidates* with the times that are left once nothing is to be waited for."""
    c, over_s = candidates, [-wait_s for wait_s in candidates.wait_s]
    over_p90_s = [WAIT_P90 * wait_s for wait_s in over_s]
    return replace(
        c,
        ttft_p50_s=sums(c.ttft_p50_s, over_s),
        ttft_p90_s=sums(c.ttft_p90_s, over_p90_s),
        total_p50_s=sums(c.total_p50_s, over_s),
        total_p90_s=sums(c.total_p90_s, over_p90_s),
        wait_s=[0.0] * len(over_s),
    )
