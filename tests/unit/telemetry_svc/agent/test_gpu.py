"""NVML in all its moods, with a fake driver."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from telemetry_svc.agent.gpu import Gpu, Gpus

# ruff: noqa: D102, N802 - NVML's own names and meanings

GIB = 1024**3
ALL = frozenset({"init", "handle", "uuid", "name", "use", "memory", "power", "temperature", "held"})


@dataclass
class FakeNvml:
    """A driver with two boards; the calls in *refused* raise what *error* makes."""

    refused: frozenset[str] = frozenset()
    error: Callable[[], pynvml.NVMLError] = field(
        default=lambda: pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    )
    held: Sequence[Any] = (SimpleNamespace(pid=7, usedGpuMemory=3 * GIB),)
    NVML_TEMPERATURE_GPU: int = 0

    def _ask(self, name: str) -> None:
        if name in self.refused:
            raise self.error()

    def nvmlInit(self) -> None:
        self._ask("init")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        self._ask("handle")
        return index

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        self._ask("uuid")
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: Any) -> str:
        self._ask("name")
        return f"board {handle}"

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        self._ask("use")
        return SimpleNamespace(gpu=25 * (handle + 1))

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        self._ask("memory")
        return SimpleNamespace(used=(handle + 1) * GIB, total=8 * GIB)

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        self._ask("power")
        return 70_500 + int(handle)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        self._ask("temperature")
        return 40 + int(handle) + sensor

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]:
        self._ask("held")
        return self.held if handle == 0 else ()


def test_reads_every_board_in_our_units() -> None:
    """Percent become ratios, milliwatts watts; the process's memory is found by its id."""
    assert Gpus(FakeNvml()).read(7)[0] == Gpu(
        uuid="GPU-0",
        name="board 0",
        utilization_ratio=0.25,
        memory_used_bytes=GIB,
        memory_total_bytes=8 * GIB,
        power_w=70.5,
        temperature_c=40.0,
        process_memory_bytes=3 * GIB,
    )


def test_memory_of_a_process_that_is_not_there_is_not_known() -> None:
    """Another namespace's process ids match nothing: empty, not zero."""
    first, second = Gpus(FakeNvml()).read(8)

    assert first.process_memory_bytes is None
    assert second.process_memory_bytes is None


def test_memory_that_the_driver_hides_is_not_known() -> None:
    """Some drivers list a process and not what it holds."""
    hidden = FakeNvml(held=(SimpleNamespace(pid=7, usedGpuMemory=None),))

    assert Gpus(hidden).read(7)[0].process_memory_bytes is None


@pytest.mark.parametrize(
    ("refused", "fields"),
    [
        ("use", ["utilization_ratio"]),
        ("memory", ["memory_used_bytes", "memory_total_bytes"]),
        ("power", ["power_w"]),
        ("temperature", ["temperature_c"]),
        ("held", ["process_memory_bytes"]),
    ],
)
def test_a_refused_figure_is_empty_and_the_others_are_there(
    refused: str, fields: list[str]
) -> None:
    """One call that is not supported costs its own fields and no more."""
    gpu = Gpus(FakeNvml(refused=frozenset({refused}))).read(7)[0]

    empty = [name for name in Gpu.__slots__ if getattr(gpu, name) is None]
    assert sorted(empty) == sorted(fields)


def test_a_board_that_gives_nothing_is_still_there() -> None:
    """All figures refused: a GPU without figures."""
    gpu = Gpus(FakeNvml(refused=ALL - {"init", "handle"})).read(7)[0]

    assert (gpu.uuid, gpu.name) == ("", "")
    assert gpu.memory_total_bytes is None


def test_a_board_that_cannot_be_opened_is_left_out() -> None:
    """No permission for a board is no board."""
    no = pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)

    assert Gpus(FakeNvml(refused=frozenset({"handle"}), error=lambda: no)).read(7) == []


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED]
)
def test_no_driver_is_no_gpus(code: int) -> None:
    """A machine without NVIDIA's driver has none, and nothing breaks."""
    missing = FakeNvml(refused=frozenset({"init"}), error=lambda: pynvml.NVMLError(code))

    assert Gpus(missing).read(7) == []
