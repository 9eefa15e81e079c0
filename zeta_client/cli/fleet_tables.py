"""Draws the fleet for `zeta top`, in whatever room a terminal has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.table import Table
from rich.text import Text

from zeta_client.cli.fleet_rows import GpuRow, Row, TaskRow

RowT = TypeVar("RowT")

NONE = "-"
OLD_S = 2.0
"""Figures older than this are marked."""
_CHROME = 4
"""Lines that a table takes beside its rows: two of titles, a rule, what was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: title, cells, and how soon it makes room where room is short; 0: never."""

    title: str
    cells: Sequence[Text]
    goes: int = 0

    @property
    def width(self) -> int:
        """Characters that it takes, with the space after it."""
        lines = (*self.title.split("\n"), *(cell.plain for cell in self.cells))
        return max(map(len, lines)) + 1


def fleet_table(rows: Sequence[Row], width: int, room: int = 1_000_000) -> Table:
    """Tabulate the replicas in *width* characters and *room* lines.

    What does not fit is left out and counted: first replicas that serve and wait for nothing.
    """
    shown = list(rows)
    if _CHROME + len(rows) > room:
        urgent = sorted(rows, key=lambda r: (r.health == "serving", -r.waiting, -r.running))
        names = {r.replica for r in urgent[: max(1, room - _CHROME - 1)]}
        shown = [r for r in rows if r.replica in names]
    table = fitted(_of_replicas(shown), width)
    if left := len(rows) - len(shown):
        table.caption = f"and {left} more, a taller terminal or --once shows them"
    return table


def task_table(rows: Sequence[TaskRow], width: int) -> Table:
    """Tabulate what each model does and is expected to do per kind of task."""
    columns = (
        Column(title="task", cells=[Text(r.task_kind) for r in rows]),
        Column(title="model", cells=[Text(r.model) for r in rows]),
        Column(title="expected\nquality", cells=[_quality(r) for r in rows]),
        _of("outcomes", rows, lambda r: r.outcomes, lambda v: f"{v:.0f}", goes=2),
        _of("requests\n/s", rows, lambda r: r.requests_per_s or None, lambda v: f"{v:.1f}", goes=6),
        _of("tokens\n/s", rows, lambda r: r.tokens_per_s or None, lambda v: f"{v:.0f}", goes=3),
        _of("TTFT\np50", rows, lambda r: r.ttft_p50_s, _ms, goes=5),
        _of("TTFT\np99", rows, lambda r: r.ttft_p99_s, _ms, goes=4),
        _of("time per\ntoken", rows, lambda r: r.tpot_p50_s, lambda v: f"{v * 1e3:.1f} ms", goes=1),
    )
    return fitted(columns, width, left=2)


def gpu_table(rows: Sequence[GpuRow], width: int) -> Table:
    """Tabulate the GPUs."""
    columns = (
        Column(title="GPU", cells=[Text(r.name or r.uuid) for r in rows]),
        Column(title="id", cells=[Text(r.uuid[:12]) for r in rows], goes=6),
        _of("busy", rows, lambda r: r.utilization_ratio, _percent),
        _of("tensor\ncores", rows, lambda r: r.tensor_active_ratio, _percent, goes=4),
        _of("memory\nbusy", rows, lambda r: r.dram_active_ratio, _percent, goes=5),
        _of("memory", rows, lambda r: r.memory_used_bytes, _bytes),
        _of("of", rows, lambda r: r.memory_total_bytes, _bytes, goes=2),
        _of("power", rows, lambda r: r.power_w, _watts),
        _of("of", rows, lambda r: r.power_limit_w, _watts, goes=3),
        _of("heat", rows, lambda r: r.temperature_c, lambda v: f"{v:.0f} °C"),
        _of("clock", rows, lambda r: r.sm_clock_hz, lambda v: f"{v / 1e6:.0f} MHz", goes=1),
        Column(title="held\ndown by", cells=[_held_down(r) for r in rows]),
        Column(title="errors", cells=[_errors(r) for r in rows]),
    )
    return fitted(columns, width)


def fitted(columns: Sequence[Column], width: int, *, left: int = 1) -> Table:
    """Put as many *columns* into *width* as fit, the first *left* of them flush left.

    Where not all fit, columns that say nothing go first, then those that may.
    """
    kept = list(columns)
    silent = [c for c in kept if c.goes and {cell.plain for cell in c.cells} <= {NONE}]
    for column in (*silent, *sorted((c for c in kept if c.goes), key=lambda c: c.goes)):
        if sum(c.width for c in kept) <= width:
            break
        if column in kept:
            kept.remove(column)
    roomy = int(sum(c.width + 1 for c in kept) <= width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, roomy, 0, 0), pad_edge=False, show_edge=False)
    for i, column in enumerate(kept):
        table.add_column(column.title, justify="left" if i < left else "right", no_wrap=True)
    for cells in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*cells)
    return table


def _of_replicas(rows: Sequence[Row]) -> Sequence[Column]:
    return (
        Column(title="replica", cells=[Text(r.replica) for r in rows]),
        Column(title="health", cells=[_health(r) for r in rows]),
        Column(title="age", cells=[_age(r) for r in rows], goes=3),
        Column(title="run", cells=[Text(f"{r.running}/{r.slots}") for r in rows]),
        Column(title="wait", cells=[Text(str(r.waiting)) for r in rows]),
        Column(title="KV\nuse", cells=[Text(_percent(r.kv_ratio)) for r in rows], goes=8),
        Column(title="tokens\n/s", cells=[Text(f"{r.tokens_per_s:.0f}") for r in rows], goes=11),
        _of("TTFT\np50", rows, lambda r: r.ttft_p50_s, _ms, goes=10),
        _of("TTFT\np99", rows, lambda r: r.ttft_p99_s, _ms, goes=9),
        _of("CPU", rows, lambda r: r.cpu_ratio, _percent, goes=4),
        _of("memory", rows, lambda r: r.rss_bytes, _bytes, goes=2),
        _of("GPU", rows, lambda r: r.gpu_ratio, _percent, goes=7),
        _of("GPU\nmemory", rows, lambda r: r.gpu_memory_bytes, _bytes, goes=1),
        _of("shadow\nprice", rows, lambda r: r.shadow_price, lambda v: f"{v:.3f}", goes=6),
        _of("forecast", rows, lambda r: r.forecast_requests_per_s, lambda v: f"{v:.1f}/s", goes=5),
    )


def _of(
    title: str,
    rows: Sequence[RowT],
    figure: Callable[[RowT], float | None],
    text: Callable[[float], str],
    *,
    goes: int = 0,
) -> Column:
    values = [figure(row) for row in rows]
    return Column(
        title=title, cells=[Text(NONE if v is None else text(v)) for v in values], goes=goes
    )


def _health(r: Row) -> Text:
    return Text(r.health, style="green" if r.health == "serving" else "red")


def _age(r: Row) -> Text:
    return Text(f"{r.age_s:.1f} s", style="red" if r.age_s > OLD_S else "")


def _quality(r: TaskRow) -> Text:
    """The best model of a kind of task stands out."""
    if r.quality is None or r.quality_stddev is None:
        return Text(NONE)
    best = "*" if r.preferred else " "
    return Text(f"{best}{r.quality:.2f} ± {r.quality_stddev:.2f}", "bold" if r.preferred else "")


def _held_down(r: GpuRow) -> Text:
    if r.throttled_by is None:
        return Text(NONE)
    return Text(", ".join(dict.fromkeys(r.throttled_by)) or "no", "red" if r.throttled_by else "")


def _errors(r: GpuRow) -> Text:
    return Text(NONE) if r.errors is None else Text(str(r.errors), "red" if r.errors else "")


def _percent(v: float) -> str:
    return f"{v:.0%}"


def _ms(v: float) -> str:
    return f"{v * 1e3:.0f} ms"


def _watts(v: float) -> str:
    return f"{v:.0f} W"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
