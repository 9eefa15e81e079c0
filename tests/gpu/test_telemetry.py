"""What the agent reads through NVML is what `nvidia-smi` says."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from telemetry_svc.agent.board import Gpu
from telemetry_svc.agent.gpu import Gpus

if TYPE_CHECKING:
    from services.model.backends.trt.card import Card

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """A figure here and at `nvidia-smi`: its name there, its unit, and how far they may differ."""

    name: str
    figure: Callable[[Gpu], float | None]
    unit: float = 1.0
    most: float = 0.0


FIGURES = (
    Same(name="index", figure=lambda g: g.index),
    Same(name="memory.total", figure=lambda g: g.load.memory_total_bytes, unit=MIB, most=1024),
    Same(name="memory.used", figure=lambda g: g.load.memory_used_bytes, unit=MIB, most=1024),
    Same(name="utilization.gpu", figure=lambda g: g.load.utilization_ratio, unit=0.01, most=50),
    Same(name="utilization.memory", figure=lambda g: g.load.memory_busy_ratio, unit=0.01, most=50),
    Same(name="temperature.gpu", figure=lambda g: g.power.temperature_c, most=5),
    Same(name="temperature.memory", figure=lambda g: g.power.memory_temperature_c, most=5),
    Same(name="power.draw", figure=lambda g: g.power.power_w, most=150),
    Same(name="enforced.power.limit", figure=lambda g: g.power.power_limit_w, most=1),
    Same(name="clocks.sm", figure=lambda g: g.clocks.sm_clock_hz, unit=1e6, most=2000),
    Same(name="clocks.max.sm", figure=lambda g: g.clocks.max_sm_clock_hz, unit=1e6),
    Same(name="clocks.mem", figure=lambda g: g.clocks.memory_clock_hz, unit=1e6, most=3000),
    Same(name="ecc.errors.corrected.volatile.total", figure=lambda g: g.errors.ecc_corrected_total),
    Same(
        name="ecc.errors.uncorrected.volatile.total",
        figure=lambda g: g.errors.ecc_uncorrected_total,
    ),
    Same(name="pcie.link.gen.current", figure=lambda g: g.links.pcie_generation, most=4),
    Same(name="pcie.link.width.current", figure=lambda g: g.links.pcie_lanes),
)
TEXTS = ("uuid", "name", "mig.mode.current")


def said(smi: str) -> list[dict[str, str]]:
    """Ask `nvidia-smi` for every board."""
    names = (*TEXTS, *(same.name for same in FIGURES))
    command = [smi, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    rows = [[part.strip() for part in line.split(",")] for line in run.stdout.splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_nvml_and_nvidia_smi_agree(card: "Card") -> None:
    """Names exactly, figures that move closely; what the board does not give is empty."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        pytest.skip("nvidia-smi is not installed")
    held = card.allocate(1 << 29)
    gpus, rows = Gpus().read(os.getpid()), said(smi)
    assert held
    assert len(gpus) == len(rows)
    for gpu, row in zip(gpus, rows, strict=True):
        print(f"\n{gpu}")
        assert (gpu.uuid, gpu.name) == (row["uuid"], row["name"])
        if row["mig.mode.current"] in ("Enabled", "Disabled"):
            assert gpu.mig_enabled is (row["mig.mode.current"] == "Enabled")
        for same in FIGURES:
            near(same, gpu, row[same.name])
        if gpu.process_memory_bytes is not None and len(gpus) == 1:
            assert gpu.process_memory_bytes >= 1 << 29


def near(same: Same, gpu: Gpu, there: str) -> None:
    """Compare a figure with what `nvidia-smi` says, which may be that there is none."""
    found = same.figure(gpu)
    try:
        expected = float(there)
    except ValueError:
        assert found is None, f"{same.name}: nvidia-smi says {there}"
        return
    assert found is not None, same.name
    assert abs(found / same.unit - expected) <= same.most, same.name


def test_every_figure_of_a_board_is_given_or_missing_alone(card: "Card") -> None:
    """What this board gives is printed, for docs/benchmarks.md; a whole board gives these."""
    del card
    for gpu in Gpus().read(os.getpid()):
        print(f"\n{gpu}")
        assert gpu.clocks.throttled is not None
        if not gpu.mig_enabled:
            assert gpu.load.utilization_ratio is not None
            assert gpu.power.energy_j is not None
