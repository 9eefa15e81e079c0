"""What errors of calls mean."""

import pytest

from router_svc.faults import counts_against, may_go_elsewhere, passes
from router_svc.run import LostError
from services.kit.errors import (
    ContextTooLongError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
    ZetaError,
)


@pytest.mark.parametrize(
    ("error", "elsewhere", "against", "for_now"),
    [
        (UnavailableError("gone"), True, True, False),
        (UnavailableError("soon", retry_after_s=1.0), True, True, True),
        (LostError("cut"), True, True, True),
        (ZetaError("broke"), True, True, False),
        (ContextTooLongError("short"), True, False, False),
        (OverloadedError("full"), True, False, True),
        (DrainingError("leaves"), True, False, True),
        (InvalidRequestError("wrong"), False, False, False),
    ],
)
def test_an_error_says_who_can_do_better_and_whose_fault_it_is(
    error: ZetaError, *, elsewhere: bool, against: bool, for_now: bool
) -> None:
    """A request is wrong everywhere, or too long here; a full replica is good, and full for now."""
    assert may_go_elsewhere(error) == elsewhere
    assert counts_against(error) == against
    assert passes(error) == for_now
