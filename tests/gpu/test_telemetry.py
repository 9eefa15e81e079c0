"""What the agent reads through NVML is what `nvidia-smi` says."""

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from telemetry_svc.agent.gpu import Gpus

if TYPE_CHECKING:
    from services.model.backends.trt.card import Card

FIELDS = ("uuid", "name", "memory.total", "memory.used", "temperature.gpu", "power.draw")
MIB = 1 << 20


def test_nvml_and_nvidia_smi_agree(card: "Card") -> None:
    """Names exactly, figures that move closely; what the board does not give is empty."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        pytest.skip("nvidia-smi is not installed")
    held = card.allocate(1 << 29)
    gpus = Gpus().read(os.getpid())
    said = subprocess.run(
        [smi, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    rows = [[part.strip() for part in line.split(",")] for line in said.stdout.splitlines()]
    assert held
    assert len(gpus) == len(rows)
    for gpu, (uuid, name, total, used, temperature, power) in zip(gpus, rows, strict=True):
        print(f"\n{gpu}")
        assert (gpu.uuid, gpu.name) == (uuid, name)
        near(gpu.memory_total_bytes, total, MIB, 1024)
        near(gpu.memory_used_bytes, used, MIB, 1024)
        near(gpu.temperature_c, temperature, 1, 5)
        near(gpu.power_w, power, 1, 150)
        if gpu.process_memory_bytes is not None and len(gpus) == 1:
            assert gpu.process_memory_bytes >= 1 << 29


def near(found: float | None, said: str, unit: int, most: float) -> None:
    """Compare a figure with what `nvidia-smi` says, which may be that there is none."""
    try:
        expected = float(said)
    except ValueError:
        assert found is None, f"nvidia-smi says {said}"
        return
    assert found is not None
    assert abs(found / unit - expected) <= most
