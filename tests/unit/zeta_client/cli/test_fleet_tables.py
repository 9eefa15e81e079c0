"""What `zeta top` draws, in terminals of every size."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from zeta_client.cli.fleet_rows import GpuRow, Row, TaskRow
from zeta_client.cli.fleet_tables import fleet_table, gpu_table, task_table

REPLICA = Row(
    replica="reasoner-14b-0",
    model="reasoner-14b",
    health="serving",
    age_s=0.1,
    running=16,
    slots=16,
    waiting=120,
    kv_ratio=1.0,
    tokens_per_s=1234.0,
    ttft_p50_s=0.123,
    ttft_p99_s=12.345,
    cpu_ratio=1.5,
    rss_bytes=30 << 30,
    gpu_ratio=0.99,
    gpu_memory_bytes=120 << 30,
    shadow_price=0.125,
    forecast_requests_per_s=12.5,
)
TASK = TaskRow(
    model="reasoner-14b",
    task_kind="reasoning",
    quality=0.91,
    quality_stddev=0.02,
    outcomes=1234,
    preferred=True,
    requests_per_s=12.5,
    tokens_per_s=1234.0,
    ttft_p50_s=0.123,
    ttft_p99_s=12.345,
    tpot_p50_s=0.0123,
)
GPU = GpuRow(
    uuid="GPU-7a1b2c3d-0000",
    name="NVIDIA H200",
    utilization_ratio=0.5,
    memory_used_bytes=77 << 30,
    memory_total_bytes=141 << 30,
    power_w=612.0,
    power_limit_w=700.0,
    temperature_c=61.0,
    sm_clock_hz=1.98e9,
    throttled_by=("power",),
    errors=0,
    tensor_active_ratio=0.25,
    dram_active_ratio=0.75,
)


def text(renderable: object, width: int = 200) -> str:
    """Render as a terminal of *width* would show it."""
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def titles(shown: str) -> str:
    """Return the words of the titles."""
    return " ".join(shown.split("─", maxsplit=1)[0].split())


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 200])
def test_nothing_is_cut_whatever_the_width(width: int) -> None:
    """Columns are left out instead, in every table, with long figures everywhere."""
    gpus = [gpu_table([GPU], width)] if width >= 60 else []  # where so much room is needed
    for table in (
        fleet_table([REPLICA, replace(REPLICA, health="draining")], width),
        task_table([TASK], width),
        *gpus,
    ):
        shown = text(table, width)

        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= width


def test_a_wide_terminal_shows_every_column() -> None:
    """Unknown figures are dashes."""
    unknown = replace(REPLICA, shadow_price=None, gpu_ratio=None)
    shown = text(fleet_table([unknown], 200))

    for title in ("age", "KV", "TTFT", "CPU", "memory", "GPU", "price", "forecast"):
        assert title in shown
    assert " - " in shown
    assert "12.3" not in shown  # seconds are shown as milliseconds
    assert "12345 ms" in shown


def test_at_80_columns_what_says_nothing_goes_first() -> None:
    """A machine without GPUs has room for prices; one with them shows how busy they are."""
    without = replace(REPLICA, gpu_ratio=None, gpu_memory_bytes=None)

    assert "GPU" not in titles(text(fleet_table([without], 80), 80))
    assert "price" in text(fleet_table([without], 80), 80)
    assert "GPU" in titles(text(fleet_table([REPLICA], 80), 80))


def test_a_low_terminal_shows_who_needs_looking_at() -> None:
    """Replicas that do not serve and those with the longest queues; the rest is counted."""
    rows = [replace(REPLICA, replica=f"m-{i}", waiting=i) for i in range(100)]
    rows[7] = replace(rows[7], health="dead")
    shown = text(fleet_table(rows, 200, room=8))

    assert [f"m-{i} " in shown for i in (7, 99, 98, 97)] == [True, True, True, False]
    assert "and 97 more" in shown
    assert "more" not in text(fleet_table(rows, 200, room=104))


def test_the_preferred_model_stands_out() -> None:
    """With a star, for terminals without bold letters."""
    assert "*0.91 ± 0.02" in text(task_table([TASK], 80))
    assert "*" not in text(task_table([replace(TASK, preferred=False)], 80))


def test_a_kind_of_task_without_figures_is_dashes() -> None:
    """A model that nobody asked has no latency, and is not at zero."""
    assert text(task_table([TaskRow(model="m", task_kind="code")], 80)).count(" -") >= 5


def test_a_gpu_that_is_held_down_says_why() -> None:
    """Not throttled is "no", and not known is a dash."""
    assert "power" in text(gpu_table([replace(GPU, throttled_by=("power",))], 200))
    assert " no " in text(gpu_table([replace(GPU, throttled_by=())], 200))
    assert " no " not in text(gpu_table([replace(GPU, throttled_by=None)], 200))
