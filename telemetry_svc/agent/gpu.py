"""GPUs through NVML. What a board, a driver or the permissions do not give is left empty."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pynvml
import structlog

T = TypeVar("T")

log = structlog.get_logger()


# ruff: noqa: D102, N802 - NVML's own names and meanings


class Nvml(Protocol):
    """What of `pynvml` is used; every call may raise `pynvml.NVMLError`."""

    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU at one moment. None: not given."""

    uuid: str
    name: str
    utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    power_w: float | None
    temperature_c: float | None
    process_memory_bytes: int | None


class Gpus:
    """Every GPU of this machine; none where there is no driver."""

    def __init__(self, nvml: Nvml = pynvml) -> None:
        self._nvml = nvml
        self._handles: list[Any] = []
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            log.info("no gpu", reason=str(error))
            return
        handles = (_given(nvml.nvmlDeviceGetHandleByIndex, i) for i in range(count))
        self._handles = [handle for handle in handles if handle is not None]

    def read(self, pid: int) -> list[Gpu]:
        """Read every GPU; *pid* is the process whose memory on it is looked up."""
        return [self._read(handle, pid) for handle in self._handles]

    def _read(self, handle: Any, pid: int) -> Gpu:
        nvml = self._nvml
        rates = _given(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = _given(nvml.nvmlDeviceGetMemoryInfo, handle)
        power_mw = _given(nvml.nvmlDeviceGetPowerUsage, handle)
        temperature = _given(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        return Gpu(
            uuid=_given(nvml.nvmlDeviceGetUUID, handle) or "",
            name=_given(nvml.nvmlDeviceGetName, handle) or "",
            utilization_ratio=None if rates is None else rates.gpu / 100,
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            power_w=None if power_mw is None else power_mw / 1000,
            temperature_c=None if temperature is None else float(temperature),
            process_memory_bytes=self._held_bytes(handle, pid),
        )

    def _held_bytes(self, handle: Any, pid: int) -> int | None:
        """None also where NVML counts processes in another namespace than *pid*'s."""
        processes = _given(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        held = [p.usedGpuMemory for p in processes if p.pid == pid]
        known = [size for size in held if size is not None]
        return sum(known) if known else None


def _given(call: Callable[..., T], *arguments: Any) -> T | None:
    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None
