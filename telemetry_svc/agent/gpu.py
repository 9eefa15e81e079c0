"""GPUs through NVML. What a board, a driver or the permissions do not give is left empty.

Every figure is asked for alone, so that none takes another away: boards cut into instances
(MIG) have no utilisation, virtual ones no power, and a board that fell off the bus has nothing
but its name.
"""

from dataclasses import dataclass
from typing import Any

import pynvml
import structlog

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
from telemetry_svc.agent.nvml import Nvml, field_values, given, scaled
from telemetry_svc.agent.xid import Xids

log = structlog.get_logger()

MOST_PROCESSES = 64
"""Processes told of per board."""
_ALL_LINKS = 0xFFFFFFFF
_REASONS = {
    pynvml.nvmlClocksEventReasonGpuIdle: Reason.GPU_IDLE,
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: Reason.APPLICATION_CLOCKS,
    pynvml.nvmlClocksEventReasonSwPowerCap: Reason.SW_POWER_CAP,
    pynvml.nvmlClocksEventReasonHwSlowdown: Reason.HW_SLOWDOWN,
    pynvml.nvmlClocksEventReasonSyncBoost: Reason.SYNC_BOOST,
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: Reason.SW_THERMAL,
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: Reason.HW_THERMAL,
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: Reason.HW_POWER_BRAKE,
    pynvml.nvmlClocksEventReasonDisplayClockSetting: Reason.DISPLAY_CLOCK,
    pynvml.nvmlClocksThrottleReasonBoardLimit: Reason.BOARD_LIMIT,
    pynvml.nvmlClocksThrottleReasonReliability: Reason.RELIABILITY,
}
_FIELDS = (pynvml.NVML_FI_DEV_MEMORY_TEMP, pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT)
_LINK_BYTES = (
    pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
    pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
)
_LINK_ERRORS = (
    pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Board:
    """What of a board stays the same, also when it is lost."""

    handle: Any
    index: int
    uuid: str
    name: str


class Gpus:
    """Every GPU of this machine; none where there is no driver. Readings may take a while."""

    def __init__(self, nvml: Nvml = pynvml) -> None:
        self._nvml = nvml
        self._boards = _boards(nvml)
        self._xids = Xids(nvml, (board.handle for board in self._boards))

    def __len__(self) -> int:
        return len(self._boards)

    def read(self, pid: int) -> list[Gpu]:
        """Read every GPU; *pid* is the process whose memory on it is looked up."""
        self._xids.listen()
        return [self._read(board, pid) for board in self._boards]

    def _read(self, board: _Board, pid: int) -> Gpu:
        handle = board.handle
        values = field_values(self._nvml, handle, _FIELDS)
        holders = self._holders(handle)
        mig = given(self._nvml.nvmlDeviceGetMigMode, handle)
        cut = mig is not None and mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE
        return Gpu(
            uuid=board.uuid,
            name=board.name,
            index=board.index,
            load=self._load(handle),
            power=self._power(handle, values.get(pynvml.NVML_FI_DEV_MEMORY_TEMP)),
            clocks=self._clocks(handle),
            errors=self._errors(handle),
            links=self._links(handle, values.get(pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT, 0)),
            process_memory_bytes=_held_bytes(holders, pid),
            processes=holders[:MOST_PROCESSES],
            mig_enabled=None if mig is None else cut,
            instances=self._instances(handle) if cut else (),
        )

    def _load(self, handle: Any) -> Load:
        rates = given(self._nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = given(self._nvml.nvmlDeviceGetMemoryInfo, handle)
        return Load(
            utilization_ratio=None if rates is None else rates.gpu / 100,
            memory_busy_ratio=None if rates is None else rates.memory / 100,
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
        )

    def _power(self, handle: Any, memory_c: int | None) -> Power:
        nvml, sensor = self._nvml, pynvml.NVML_TEMPERATURE_GPU
        return Power(
            power_w=scaled(given(nvml.nvmlDeviceGetPowerUsage, handle), 1e-3),
            power_limit_w=scaled(given(nvml.nvmlDeviceGetEnforcedPowerLimit, handle), 1e-3),
            energy_j=scaled(given(nvml.nvmlDeviceGetTotalEnergyConsumption, handle), 1e-3),
            temperature_c=scaled(given(nvml.nvmlDeviceGetTemperature, handle, sensor), 1.0),
            # A board without that sensor says 0.
            memory_temperature_c=scaled(memory_c or None, 1.0),
        )

    def _clocks(self, handle: Any) -> Clocks:
        nvml, sm, memory = self._nvml, pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM
        bits = given(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
        if bits is None:  # the name that drivers before 535 know it by
            bits = given(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        reasons = (
            None if bits is None else tuple(r for bit, r in _REASONS.items() if bits & int(bit))
        )
        return Clocks(
            sm_clock_hz=scaled(given(nvml.nvmlDeviceGetClockInfo, handle, sm), 1e6),
            max_sm_clock_hz=scaled(given(nvml.nvmlDeviceGetMaxClockInfo, handle, sm), 1e6),
            memory_clock_hz=scaled(given(nvml.nvmlDeviceGetClockInfo, handle, memory), 1e6),
            reasons=reasons,
        )

    def _errors(self, handle: Any) -> Errors:
        ecc, since = self._nvml.nvmlDeviceGetTotalEccErrors, pynvml.NVML_VOLATILE_ECC
        xid_total, last_xid = self._xids.of(handle)
        return Errors(
            ecc_corrected_total=given(ecc, handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, since),
            ecc_uncorrected_total=given(
                ecc, handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, since
            ),
            xid_total=xid_total,
            last_xid=last_xid,
        )

    def _links(self, handle: Any, nvlinks: int) -> Links:
        nvml = self._nvml
        sent, received = (
            scaled(given(nvml.nvmlDeviceGetPcieThroughput, handle, counter), 1e3)
            for counter in (pynvml.NVML_PCIE_UTIL_TX_BYTES, pynvml.NVML_PCIE_UTIL_RX_BYTES)
        )
        states = [given(nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(nvlinks)]
        moved = field_values(nvml, handle, _LINK_BYTES, scope=_ALL_LINKS) if nvlinks else {}
        wrong = field_values(nvml, handle, _LINK_ERRORS) if nvlinks else {}
        return Links(
            pcie_generation=given(nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
            pcie_lanes=given(nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
            pcie_tx_bytes_per_s=sent,
            pcie_rx_bytes_per_s=received,
            pcie_replays_total=given(nvml.nvmlDeviceGetPcieReplayCounter, handle),
            nvlinks=states.count(pynvml.NVML_FEATURE_ENABLED) if nvlinks else None,
            nvlink_tx_bytes_total=_kib(moved.get(_LINK_BYTES[0])),
            nvlink_rx_bytes_total=_kib(moved.get(_LINK_BYTES[1])),
            nvlink_errors_total=sum(wrong.values()) if wrong else None,
        )

    def _holders(self, handle: Any) -> tuple[Holder, ...]:
        found = given(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        return tuple(
            Holder(pid=p.pid, memory_bytes=p.usedGpuMemory, instance_id=_number(p.gpuInstanceId))
            for p in found
        )

    def _instances(self, handle: Any) -> tuple[Instance, ...]:
        nvml = self._nvml
        count = given(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
        parts = (given(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, i) for i in range(count))
        return tuple(self._instance(part) for part in parts if part is not None)

    def _instance(self, part: Any) -> Instance:
        memory = given(self._nvml.nvmlDeviceGetMemoryInfo, part)
        return Instance(
            uuid=given(self._nvml.nvmlDeviceGetUUID, part) or "",
            instance_id=given(self._nvml.nvmlDeviceGetGpuInstanceId, part),
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
        )


def _boards(nvml: Nvml) -> list[_Board]:
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        log.info("no gpu", reason=str(error))
        return []
    handles = [(i, given(nvml.nvmlDeviceGetHandleByIndex, i)) for i in range(count)]
    return [
        _Board(
            handle=handle,
            index=i,
            uuid=given(nvml.nvmlDeviceGetUUID, handle) or "",
            name=given(nvml.nvmlDeviceGetName, handle) or "",
        )
        for i, handle in handles
        if handle is not None
    ]


def _held_bytes(holders: tuple[Holder, ...], pid: int) -> int | None:
    """None also where NVML counts processes in another namespace than *pid*'s."""
    known = [h.memory_bytes for h in holders if h.pid == pid and h.memory_bytes is not None]
    return sum(known) if known else None


def _kib(count: int | None) -> int | None:
    return None if count is None else count * 1024


def _number(instance_id: int) -> int | None:
    """Return an instance's id; NVML says 2^32 - 1 for none."""
    return None if instance_id == _ALL_LINKS else instance_id
