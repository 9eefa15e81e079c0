"""What of NVIDIA's management library (`pynvml`) is used, and how it is asked."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import pynvml

T = TypeVar("T")

# ruff: noqa: D102, N802 - NVML's own names and meanings


class Nvml(Protocol):
    """The functions; every call may raise `pynvml.NVMLError`. Constants are `pynvml`'s own."""

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetClockInfo(self, handle: Any, type: int) -> int: ...  # noqa: A002
    def nvmlDeviceGetMaxClockInfo(self, handle: Any, type: int) -> int: ...  # noqa: A002
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int: ...
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int: ...
    def nvmlDeviceGetTotalEccErrors(
        self, handle: Any, errorType: int, counterType: int  # noqa: N803
    ) -> int: ...  # fmt: skip
    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: Any) -> int: ...
    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: Any) -> int: ...
    def nvmlDeviceGetPcieThroughput(self, device: Any, counter: int) -> int: ...
    def nvmlDeviceGetPcieReplayCounter(self, handle: Any) -> int: ...
    def nvmlDeviceGetNvLinkState(self, device: Any, link: int) -> int: ...
    def nvmlDeviceGetFieldValues(self, handle: Any, fieldIds: Sequence[Any]) -> Any: ...  # noqa: N803
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...
    def nvmlDeviceGetMigMode(self, device: Any) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, device: Any) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: int) -> Any: ...
    def nvmlDeviceGetGpuInstanceId(self, device: Any) -> int: ...
    def nvmlEventSetCreate(self) -> Any: ...
    def nvmlDeviceRegisterEvents(self, handle: Any, eventTypes: int, eventSet: Any) -> None: ...  # noqa: N803
    def nvmlEventSetWait_v2(self, eventSet: Any, timeoutms: int) -> Any: ...  # noqa: N803


def given(call: Callable[..., T], *arguments: Any) -> T | None:
    """Ask; None where the board, its driver or the permissions do not say."""
    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None


def scaled(value: float | None, unit: float) -> float | None:
    """Return *value* times *unit*, None of None."""
    return None if value is None else value * unit


_MEMBERS = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}


def field_values(
    nvml: Nvml, handle: Any, fields: Sequence[int], *, scope: int = 0
) -> dict[int, int]:
    """Return those of *fields* that the board gives; each is refused on its own."""
    asked = [(field, scope) for field in fields]
    values = given(nvml.nvmlDeviceGetFieldValues, handle, asked) or ()
    found = {
        value.fieldId: int(getattr(value.value, _MEMBERS[value.valueType]))
        for value in values
        if value.nvmlReturn == pynvml.NVML_SUCCESS and value.valueType in _MEMBERS
    }
    return {field: value for field, value in found.items() if value >= 0}


def address(handle: Any) -> int | None:
    """Tell one board's handle from another's; good also when the board is lost."""
    return ctypes.cast(handle, ctypes.c_void_p).value
