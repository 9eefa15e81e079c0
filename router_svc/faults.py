"""What an error of a model's call means: whether others can do better, and whose fault it is."""

from typing import Final

from router_svc.run import LostError
from services.kit.errors import (
    ContextTooLongError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    PreemptedError,
    StreamBrokenError,
    UnavailableError,
    UnknownModelError,
    ZetaError,
)

_ELSEWHERE: Final = (
    UnavailableError,
    OverloadedError,
    PreemptedError,
    ContextTooLongError,
    UnknownModelError,
)
"""What another replica or model may well answer; a plain ZetaError (INTERNAL) counts as well."""
_NOT_ITS_FAULT: Final = (DrainingError, OverloadedError, PreemptedError, InvalidRequestError)


def counts_against(error: ZetaError) -> bool:
    """Whether *error* speaks against the replica that raised it."""
    return may_go_elsewhere(error) and not isinstance(error, _NOT_ITS_FAULT)


def may_go_elsewhere(error: ZetaError) -> bool:
    """Whether another replica may well do what failed with *error*."""
    return isinstance(error, _ELSEWHERE) or type(error) is ZetaError


def passes(error: ZetaError) -> bool:
    """Whether *error* is one of the moment: it says when to come again, or that nobody spoke."""
    if isinstance(error, (LostError, DrainingError, OverloadedError, PreemptedError)):
        return True
    return isinstance(error, UnavailableError) and error.retry_after_s is not None


def told(error: ZetaError) -> ZetaError:
    """Return what the caller is told of *error*: who finds nobody is told when to come again."""
    if isinstance(error, UnavailableError) and error.retry_after_s is None:
        return UnavailableError(str(error), retry_after_s=1.0)
    return error


def lost_midway(replica: str, error: ZetaError) -> StreamBrokenError:
    """Build the caller's error where nobody goes on with what *replica* began."""
    return StreamBrokenError(f"{replica} was lost in the middle of the answer: {error}")


def several_broken(error: ZetaError) -> StreamBrokenError:
    """Build the caller's error where one of several answers broke off."""
    return StreamBrokenError(f"several answers do not go on elsewhere; ask again: {error}")
