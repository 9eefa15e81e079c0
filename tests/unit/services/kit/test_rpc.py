"""What a call brings along."""

from dataclasses import dataclass
from typing import Any

import pytest

from services.kit.rpc import named_by_caller

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass(slots=True)
class Caller:
    """A call's metadata."""

    metadata: list[tuple[str, str]]

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """Return it."""
        return self.metadata


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ([], ""),
        ([("x-request-id", "mine")], "mine"),
        ([("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")], TRACE),
        ([("x-request-id", "mine"), ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")], TRACE),
        ([("x-request-id", "mine"), ("traceparent", "garbage")], "mine"),
    ],
)
def test_a_call_is_named_by_its_trace_or_its_id(metadata: list[tuple[str, str]], name: str) -> None:
    """The trace is the same however often the caller tries; ids are made anew by some proxies."""
    call: Any = Caller(metadata)
    assert named_by_caller(call) == name
