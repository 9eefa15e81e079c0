"""How `zeta top` fits into a terminal."""

import io

from rich.console import Console
from zeta.inference.v1.inference_service_pb2 import (
    TASK_KIND_CODE,
    TASK_KIND_GENERAL,
    TASK_KIND_REASONING,
)
from zeta.model.v1.model_control_service_pb2 import ModelState
from zeta.router.v1.router_service_pb2 import Belief
from zeta.telemetry.v1.telemetry_service_pb2 import (
    FleetSnapshot,
    ReplicaReport,
    ReplicaStatus,
    WatchResponse,
)

from zeta_client.cli.fleet_screen import fitting
from zeta_client.cli.fleet_view import FleetView

HEIGHT = 12


def view_of(replicas: int) -> FleetView:
    """Return a fleet with more kinds of tasks than a low terminal has lines."""
    statuses = [
        ReplicaStatus(report=ReplicaReport(replica=f"m-{i}", state=ModelState(model="m")))
        for i in range(replicas)
    ]
    kinds = (TASK_KIND_CODE, TASK_KIND_REASONING, TASK_KIND_GENERAL)
    view = FleetView(beliefs=[Belief(model=f"m{i}", task_kind=k) for i in range(9) for k in kinds])
    view.apply(WatchResponse(snapshot=FleetSnapshot(replicas=statuses)), 0.0)
    return view


def shown(view: FleetView, **troubles: str) -> list[str]:
    """Return the lines that a terminal shows, which is the first of them."""
    console = Console(file=io.StringIO(), width=80, height=HEIGHT)
    console.print(fitting(view, troubles, console, 0.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()[:HEIGHT]


def test_what_is_wrong_is_seen_in_a_low_terminal() -> None:
    """Not at the end, which such a terminal cuts off, and replicas are still there."""
    lines = shown(view_of(20), telemetry="no answer for 2 s", router="nothing answers")

    assert lines[:2] == ["telemetry: no answer for 2 s", "router: nothing answers"]
    assert any(line.startswith("m-0 ") for line in lines)


def test_replicas_come_first_where_nothing_is_wrong() -> None:
    """No empty line above them."""
    assert "replica" in "".join(shown(view_of(1))[:2])
    assert shown(FleetView())[0] == "no replica has been heard of yet"
