"""NVML in all its moods, with a fake driver behind the real module's constants and structures."""

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pynvml
import pytest

from telemetry_svc.agent.board import (
    Clocks,
    Errors,
    Gpu,
    Holder,
    Instance,
    Links,
    Load,
    Power,
    Reason,
)
from telemetry_svc.agent.gpu import Gpus
from telemetry_svc.agent.nvml import Nvml
from tests.unit.telemetry_svc.agent.fake_nvml import GIB, FakeNvml, holder

CALLS = [name for name in vars(Nvml) if name.startswith("nvml")]
FIGURES = [name for name in CALLS if "DeviceGet" in name and not name.endswith(("Count", "Index"))]

WHOLE = Gpu(
    uuid="GPU-0",
    name="board 0",
    index=0,
    load=Load(
        utilization_ratio=0.25,
        memory_busy_ratio=0.1,
        memory_used_bytes=GIB,
        memory_total_bytes=8 * GIB,
    ),
    power=Power(
        power_w=70.5,
        power_limit_w=700.0,
        energy_j=1.5,
        temperature_c=40.0,
        memory_temperature_c=61.0,
    ),
    clocks=Clocks(
        sm_clock_hz=1.98e9,
        max_sm_clock_hz=1.985e9,
        memory_clock_hz=2.619e9,
        reasons=(Reason.SW_POWER_CAP,),
    ),
    errors=Errors(ecc_corrected_total=5, ecc_uncorrected_total=1, xid_total=0),
    links=Links(
        pcie_generation=5,
        pcie_lanes=16,
        pcie_tx_bytes_per_s=3e5,
        pcie_rx_bytes_per_s=4e5,
        pcie_replays_total=9,
        nvlinks=3,
        nvlink_tx_bytes_total=1000 * 1024,
        nvlink_rx_bytes_total=2000 * 1024,
        nvlink_errors_total=3,
    ),
    process_memory_bytes=3 * GIB,
    processes=(Holder(pid=7, memory_bytes=3 * GIB), Holder(pid=8, memory_bytes=GIB)),
    mig_enabled=False,
)


def first(nvml: FakeNvml, pid: int = 7) -> Gpu:
    """Read the first board."""
    return Gpus(nvml).read(pid)[0]


def figures(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every figure of a value by its path."""
    for field in fields(value):
        inner, name = getattr(value, field.name), f"{path}{field.name}"
        if is_dataclass(inner):
            yield from figures(inner, f"{name}.")
        else:
            yield name, inner


def test_reads_every_board_in_our_units() -> None:
    """Percent become ratios, milliwatts watts, megahertz hertz, KiB bytes."""
    assert first(FakeNvml()) == WHOLE


@pytest.mark.parametrize("name", CALLS)
def test_the_real_module_has_every_function_that_is_called(name: str) -> None:
    """The installed package has it, and takes what the protocol and the fake take."""
    real = list(inspect.signature(getattr(pynvml, name)).parameters.values())
    seam = list(inspect.signature(getattr(Nvml, name)).parameters)[1:]
    fake = list(inspect.signature(FakeNvml.__dict__[name]).parameters)[1:]

    assert fake == seam
    assert [p.name for p in real[: len(seam)]] == seam
    assert all(p.default is not p.empty for p in real[len(seam) :])


COSTS = {
    "nvmlDeviceGetUUID": {"uuid"},
    "nvmlDeviceGetName": {"name"},
    "nvmlDeviceGetUtilizationRates": {"load.utilization_ratio", "load.memory_busy_ratio"},
    "nvmlDeviceGetMemoryInfo": {"load.memory_used_bytes", "load.memory_total_bytes"},
    "nvmlDeviceGetPowerUsage": {"power.power_w"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power.power_limit_w"},
    "nvmlDeviceGetTotalEnergyConsumption": {"power.energy_j"},
    "nvmlDeviceGetTemperature": {"power.temperature_c"},
    "nvmlDeviceGetClockInfo": {"clocks.sm_clock_hz", "clocks.memory_clock_hz"},
    "nvmlDeviceGetMaxClockInfo": {"clocks.max_sm_clock_hz"},
    "nvmlDeviceGetCurrentClocksEventReasons": set(),  # the older name is asked
    "nvmlDeviceGetCurrentClocksThrottleReasons": set(),
    "nvmlDeviceGetTotalEccErrors": {"errors.ecc_corrected_total", "errors.ecc_uncorrected_total"},
    "nvmlDeviceGetCurrPcieLinkGeneration": {"links.pcie_generation"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"links.pcie_lanes"},
    "nvmlDeviceGetPcieThroughput": {"links.pcie_tx_bytes_per_s", "links.pcie_rx_bytes_per_s"},
    "nvmlDeviceGetPcieReplayCounter": {"links.pcie_replays_total"},
    "nvmlDeviceGetNvLinkState": {"links.nvlinks"},
    "nvmlDeviceGetFieldValues": {
        *("power.memory_temperature_c", "links.nvlinks", "links.nvlink_errors_total"),
        *("links.nvlink_tx_bytes_total", "links.nvlink_rx_bytes_total"),
    },
    "nvmlDeviceGetComputeRunningProcesses": {"process_memory_bytes", "processes"},
    "nvmlDeviceGetMigMode": {"mig_enabled"},
    "nvmlDeviceGetGpuInstanceId": set(),  # of parts alone
}


@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_UNKNOWN,
    ],
)
@pytest.mark.parametrize("name", FIGURES)
def test_a_refused_figure_is_empty_and_the_others_are_there(name: str, error: int) -> None:
    """One call that is refused, for whatever reason, costs its own fields and no more."""
    found = dict(figures(first(FakeNvml(refused=frozenset({name}), error=error))))

    differs = {path for path, value in figures(WHOLE) if found[path] != value}
    assert differs == COSTS[name]


def test_clock_reasons_refused_under_both_names_are_not_known() -> None:
    """Unknown is not the same as not throttled."""
    both = {name for name in CALLS if "Reasons" in name}
    clocks = first(FakeNvml(refused=frozenset(both))).clocks

    assert (clocks.reasons, clocks.throttled) == (None, None)


@pytest.mark.parametrize(
    ("bits", "reasons", "held"),
    [
        (0, (), ()),
        (pynvml.nvmlClocksEventReasonGpuIdle, (Reason.GPU_IDLE,), ()),
        (
            pynvml.nvmlClocksEventReasonHwSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
            (Reason.HW_SLOWDOWN, Reason.HW_THERMAL),
            (Reason.HW_SLOWDOWN, Reason.HW_THERMAL),
        ),
        (1 << 40, (), ()),  # a reason of tomorrow's drivers
    ],
)
def test_an_idle_board_is_not_throttled(
    bits: int, reasons: tuple[Reason, ...], held: tuple[Reason, ...]
) -> None:
    """Only heat, power and faults are what nobody chose."""
    clocks = first(FakeNvml(reasons=bits)).clocks

    assert clocks.reasons == reasons
    assert clocks.throttled is bool(held)


def test_a_board_that_is_lost_keeps_its_name_and_the_other_its_figures() -> None:
    """A board that falls off the bus while the agent runs takes nothing else away."""
    nvml = FakeNvml()
    gpus = Gpus(nvml)
    nvml.lost = 0
    lost, other = gpus.read(7)

    known = {path for path, value in figures(lost) if value not in (None, ())}
    assert known == {"uuid", "name", "index", "errors.xid_total"}
    assert other.load.utilization_ratio == 0.5


def test_a_board_cut_into_instances_shows_them() -> None:
    """With MIG the whole has no utilisation; each instance has its memory and its number."""
    nvml = FakeNvml(mig=True, held=(holder(7, GIB, instance=2),))
    gpu = first(nvml)

    assert (gpu.mig_enabled, gpu.load.utilization_ratio) == (True, None)
    assert gpu.load.memory_total_bytes == 8 * GIB
    assert gpu.instances == (
        Instance(uuid="MIG-100", instance_id=1, memory_used_bytes=GIB, memory_total_bytes=8 * GIB),
        Instance(
            uuid="MIG-101", instance_id=2, memory_used_bytes=2 * GIB, memory_total_bytes=8 * GIB
        ),
    )
    assert gpu.processes == (Holder(pid=7, memory_bytes=GIB, instance_id=2),)


def test_a_board_without_nvlink_says_nothing_of_it() -> None:
    """No links is empty, not zero."""
    nvml = FakeNvml()
    del nvml.fields[pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT]
    links = first(nvml).links

    assert (links.nvlinks, links.nvlink_tx_bytes_total, links.nvlink_errors_total) == (None,) * 3
    assert links.pcie_lanes == 16


def test_errors_of_a_board_are_counted_as_the_driver_reports_them() -> None:
    """Xids belong to their board, add up, and need the board no more."""
    nvml = FakeNvml(xids=[(0, 31), (1, 13), (0, 79)])
    gpus = Gpus(nvml)
    nvml.lost = 0
    first_board, second_board = gpus.read(7)

    assert (first_board.errors.xid_total, first_board.errors.last_xid) == (2, 79)
    assert (second_board.errors.xid_total, second_board.errors.last_xid) == (1, 13)
    nvml.xids.append((1, 48))
    assert gpus.read(7)[1].errors.last_xid == 48


@pytest.mark.parametrize("refused", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_a_driver_that_reports_no_errors_has_none_to_count(refused: str) -> None:
    """Not known is not zero."""
    errors = first(FakeNvml(refused=frozenset({refused}), xids=[(0, 31)])).errors

    assert (errors.xid_total, errors.last_xid) == (None, None)
    assert errors.ecc_corrected_total == 5


def test_errors_without_end_do_not_hold_the_reading_up() -> None:
    """What is not taken in now is taken in later."""
    gpus = Gpus(FakeNvml(xids=[(0, 31)] * 250))

    assert [gpus.read(7)[0].errors.xid_total for _ in range(4)] == [100, 200, 250, 250]


def test_memory_of_a_process_that_is_not_there_is_not_known() -> None:
    """Another namespace's process ids match nothing: empty, not zero."""
    assert [gpu.process_memory_bytes for gpu in Gpus(FakeNvml()).read(9)] == [None, None]


def test_memory_that_the_driver_hides_is_not_known() -> None:
    """Some drivers list a process and not what it holds."""
    gpu = first(FakeNvml(held=(holder(7, None),)))

    assert gpu.process_memory_bytes is None
    assert gpu.processes == (Holder(pid=7),)


def test_a_board_that_cannot_be_opened_is_left_out() -> None:
    """No permission for a board is no board."""
    refused = frozenset({"nvmlDeviceGetHandleByIndex"})

    assert Gpus(FakeNvml(refused=refused, error=pynvml.NVML_ERROR_NO_PERMISSION)).read(7) == []


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED]
)
def test_no_driver_is_no_gpus(code: int) -> None:
    """A machine without NVIDIA's driver has none, and nothing breaks."""
    assert len(Gpus(FakeNvml(refused=frozenset({"nvmlInit"}), error=code))) == 0


def test_a_sensor_that_is_not_there_reads_nothing() -> None:
    """The driver says 0 degrees, which no memory has."""
    nvml = FakeNvml()
    nvml.fields[pynvml.NVML_FI_DEV_MEMORY_TEMP] = 0

    assert first(nvml).power == replace(WHOLE.power, memory_temperature_c=None)
