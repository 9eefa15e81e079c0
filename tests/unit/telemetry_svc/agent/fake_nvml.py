"""A driver with two boards, as `pynvml` shows one: its functions, constants and structures."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

# ruff: noqa: D102, N802, N803 - NVML's own names and meanings

GIB = 1024**3
NO_INSTANCE = 0xFFFFFFFF
FIELDS = {
    pynvml.NVML_FI_DEV_MEMORY_TEMP: 61,
    pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT: 4,
    pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX: 1000,
    pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX: 2000,
    pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL: 1,
    pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL: 2,
}
"""What the boards know; every other field is not supported."""


def handle(number: int) -> Any:
    """Return a handle as the driver does: a pointer that nobody follows."""
    return ctypes.cast(number + 1, pynvml.c_nvmlDevice_t)


def number(of: Any) -> int:
    """Return the board of a handle; from 100 on, parts of one."""
    return (ctypes.cast(of, ctypes.c_void_p).value or 0) - 1


def holder(pid: int, memory: int | None, instance: int = NO_INSTANCE) -> SimpleNamespace:
    """Return a process as `nvmlDeviceGetComputeRunningProcesses` does."""
    return SimpleNamespace(pid=pid, usedGpuMemory=memory, gpuInstanceId=instance)


@dataclass
class FakeNvml:
    """Calls named in *refused* raise *error*; the board *lost* refuses everything."""

    refused: frozenset[str] = frozenset()
    error: int = pynvml.NVML_ERROR_NOT_SUPPORTED
    lost: int | None = None
    held: Sequence[Any] = (holder(7, 3 * GIB), holder(8, GIB))
    fields: dict[int, int] = field(default_factory=lambda: dict(FIELDS))
    reasons: int = pynvml.nvmlClocksEventReasonSwPowerCap
    mig: bool = False
    xids: list[tuple[int, int]] = field(default_factory=list)
    """Board and error, to be reported."""

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        return self._guarded(name, found) if name.startswith("nvml") else found

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            if name in self.refused:
                raise pynvml.NVMLError(self.error)
            one = arguments[0] if arguments else None
            if isinstance(one, pynvml.c_nvmlDevice_t) and number(one) == self.lost:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
            return call(*arguments)

        return ask

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return handle(index)

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        i = number(handle)
        return f"GPU-{i}" if i < 100 else f"MIG-{i}"

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return f"board {number(handle)}"

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        if self.mig:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=25 * (number(handle) + 1), memory=10)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        return SimpleNamespace(used=(number(handle) % 100 + 1) * GIB, total=8 * GIB)

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        return 70_500 + number(handle)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        return 700_000 + number(handle)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        return 1_500 + number(handle)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return 40 + number(handle)

    def nvmlDeviceGetClockInfo(self, handle: Any, type: int) -> int:  # noqa: A002
        return {pynvml.NVML_CLOCK_SM: 1_980, pynvml.NVML_CLOCK_MEM: 2_619}[type] + number(handle)

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, type: int) -> int:  # noqa: A002
        return {pynvml.NVML_CLOCK_SM: 1_985}[type] + number(handle)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        del handle
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        del handle
        return self.reasons

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, errorType: int, counterType: int) -> int:
        assert counterType == pynvml.NVML_VOLATILE_ECC
        return {0: 5, 1: 1}[errorType] + number(handle)

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: Any) -> int:
        return 5 + number(handle)

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: Any) -> int:
        return 16 + number(handle)

    def nvmlDeviceGetPcieThroughput(self, device: Any, counter: int) -> int:
        return {pynvml.NVML_PCIE_UTIL_TX_BYTES: 300, pynvml.NVML_PCIE_UTIL_RX_BYTES: 400}[
            counter
        ] + number(device)

    def nvmlDeviceGetPcieReplayCounter(self, handle: Any) -> int:
        return 9 + number(handle)

    def nvmlDeviceGetNvLinkState(self, device: Any, link: int) -> int:
        del device
        return int(link != 2)

    def nvmlDeviceGetFieldValues(self, handle: Any, fieldIds: Sequence[Any]) -> Any:
        """Fill the real structures: a field alone is refused, not the call."""
        del handle
        values = (pynvml.c_nvmlFieldValue_t * len(fieldIds))()
        for value, (wanted, scope) in zip(values, fieldIds, strict=True):
            value.fieldId, value.scopeId = wanted, scope
            if wanted in self.fields:
                value.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
                value.value.ullVal = self.fields[wanted]
            else:
                value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
        return values

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]:
        return self.held if number(handle) == 0 else ()

    def nvmlDeviceGetMigMode(self, device: Any) -> Sequence[int]:
        del device
        return [int(self.mig), int(self.mig)]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Any) -> int:
        del device
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: int) -> Any:
        if index >= 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle(100 * (number(device) + 1) + index)

    def nvmlDeviceGetGpuInstanceId(self, device: Any) -> int:
        return 1 + number(device) % 100

    def nvmlEventSetCreate(self) -> Any:
        return object()

    def nvmlDeviceRegisterEvents(self, handle: Any, eventTypes: int, eventSet: Any) -> None:
        assert eventTypes == pynvml.nvmlEventTypeXidCriticalError
        del handle, eventSet

    def nvmlEventSetWait_v2(self, eventSet: Any, timeoutms: int) -> Any:
        assert timeoutms == 0
        del eventSet
        if not self.xids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        board, xid = self.xids.pop(0)
        return SimpleNamespace(device=handle(board), eventData=xid)
