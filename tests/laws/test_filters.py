"""The laws of filters, for every entry of FILTERS."""

from dataclasses import fields, replace

import numpy as np
import pytest

from router_svc.core.filters import FILTERS, admitted, rejections
from router_svc.core.types import Bools, Reason, Replicas
from tests.unit.router_svc.fixtures import ask, replicas

MIXED = replace(
    replicas({"a": 2, "b": 2, "c": 2}),
    healthy=np.array([True, False, True, True, True, True]),
    draining=np.array([False, False, True, False, False, False]),
    circuit_closed=np.array([True, True, True, False, True, True]),
    can_generate=np.array([True, True, True, True, False, True]),
    context_tokens=np.array([512.0, 512.0, 512.0, 512.0, 512.0, 2.0]),
)
ASKS = [
    ask(),
    ask(model="b"),
    ask(allowed_models=frozenset({"a", "c"})),
    ask(failed=frozenset({"a-0", "c-1"})),
]


def reordered(fleet: Replicas, order: list[int]) -> Replicas:
    """The same replicas in another order."""
    return replace(
        fleet,
        names=tuple(fleet.names[i] for i in order),
        **{
            f.name: getattr(fleet, f.name)[order]
            for f in fields(fleet)
            if isinstance(getattr(fleet, f.name), np.ndarray)
        },
    )


@pytest.mark.parametrize("reason", FILTERS)
@pytest.mark.parametrize("request_", ASKS)
def test_a_filter_judges_each_replica_alone(reason: Reason, request_: object) -> None:
    """One bool each, the same wherever the replica stands."""
    judge, order = FILTERS[reason].admits, [3, 0, 5, 1, 4, 2]
    able: Bools = judge(request_, 20.0, MIXED)  # type: ignore[arg-type] # parametrised
    assert able.dtype == np.bool_
    assert able.shape == (6,)
    again = judge(request_, 20.0, reordered(MIXED, order))  # type: ignore[arg-type] # parametrised
    assert again.tolist() == able[order].tolist()


@pytest.mark.parametrize("reason", FILTERS)
def test_a_filter_admits_what_nothing_speaks_against(reason: Reason) -> None:
    """A healthy, idle fleet passes every filter."""
    assert FILTERS[reason].admits(ask(), 20.0, replicas({"a": 1, "b": 2})).all()


def test_every_refusal_has_its_reason() -> None:
    """Exactly those that are not admitted are rejected, each for the first reason that holds."""
    request = ask(failed=frozenset({"a-0"}))
    found = {r.replica: r.reason for r in rejections(request, 20.0, MIXED)}
    able = admitted(request, 20.0, MIXED)
    assert found == {
        "a-0": Reason.FAILED_BEFORE,
        "a-1": Reason.UNHEALTHY,
        "b-0": Reason.DRAINING,
        "b-1": Reason.CIRCUIT_OPEN,
        "c-0": Reason.CAPABILITY,
        "c-1": Reason.CONTEXT,
    }
    assert not able.any()
    only_b = {r.reason for r in rejections(ask(model="b"), 20.0, MIXED) if r.model != "b"}
    assert only_b == {Reason.NOT_ALLOWED}
