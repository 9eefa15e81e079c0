"""What errors of calls mean."""

import pytest

from router_svc.faults import counts_against, may_go_elsewhere
from services.kit.errors import (
    ContextTooLongError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
    ZetaError,
)


@pytest.mark.parametrize(
    ("error", "elsewhere", "against"),
    [
        (UnavailableError("gone"), True, True),
        (ZetaError("broke"), True, True),
        (ContextTooLongError("short"), True, False),
        (OverloadedError("full"), True, False),
        (DrainingError("leaves"), True, False),
        (InvalidRequestError("wrong"), False, False),
    ],
)
def test_an_error_says_who_can_do_better_and_whose_fault_it_is(
    error: ZetaError, *, elsewhere: bool, against: bool
) -> None:
    """A request is wrong everywhere, or too long here; a full replica is good."""
    assert may_go_elsewhere(error) == elsewhere
    assert counts_against(error) == against
