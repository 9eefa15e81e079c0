"""Lays out `zeta top`: what is wrong, replicas, GPUs, kinds of task."""

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.text import Text

from zeta_client.cli import fleet_tables
from zeta_client.cli.fleet_view import FleetView


def whole(view: FleetView, troubles: Mapping[str, str], width: int, now_s: float) -> Group:
    """Lay everything out in *width* characters, however many lines it takes."""
    return Group(*_told(troubles), _replicas(view, width, now_s), *_others(view, width))


def fitting(view: FleetView, troubles: Mapping[str, str], console: Console, now_s: float) -> Group:
    """Lay it out for a terminal of *console*'s size now.

    Replicas get the room that the rest leaves, at least two thirds; what is wrong comes first,
    because a low terminal cuts the end off.
    """
    width, height = console.size
    told, others = Group(*_told(troubles)), Group(*_others(view, width))
    lines = sum(len(console.render_lines(part, console.options)) for part in (told, others))
    room = max(height - lines, 2 * height // 3)
    return Group(told, _replicas(view, width, now_s, room), others)


def _told(troubles: Mapping[str, str]) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"{who}: {said}", "red") for who, said in troubles.items()]
    return [*lines, Text()] if lines else []


def _replicas(view: FleetView, width: int, now_s: float, room: int = 1_000_000) -> RenderableType:
    if rows := view.rows(now_s):
        return fleet_tables.fleet_table(rows, width, room)
    return Text("no replica has been heard of yet")


def _others(view: FleetView, width: int) -> list[RenderableType]:
    tasks, gpus = view.tasks(), view.gpus()
    parts: list[RenderableType] = []
    if gpus:
        parts += [Text(), fleet_tables.gpu_table(gpus, width)]
    if tasks:
        parts += [Text(), fleet_tables.task_table(tasks, width)]
    return parts
