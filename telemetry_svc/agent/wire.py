"""What an agent read, as protobuf."""

from dataclasses import fields
from typing import Any

from zeta.model.v1.model_control_service_pb2 import ModelState
from zeta.telemetry.v1.telemetry_service_pb2 import (
    ClockReason,
    GpuInstance,
    GpuProcess,
    GpuProfile,
    GpuUse,
    ProcessUse,
)
from zeta.telemetry.v1.telemetry_service_pb2 import Rates as WireRates

from telemetry_svc.agent.board import Clocks, Gpu, Holder, Instance, Profile, Reason
from telemetry_svc.agent.use import Use
from telemetry_svc.core.rates import Counters, Rates


def counters(state: ModelState) -> Counters:
    """Return what rates are made from."""
    return Counters(
        completion_tokens=state.completion_tokens_total,
        prompt_tokens=state.prompt_tokens_total,
        requests=state.requests_total,
        busy_s=state.busy_total.seconds + state.busy_total.nanos / 1e9,
    )


def rates(value: Rates) -> WireRates:
    """Write rates."""
    return WireRates(**_figures(value))


def process_use(value: Use | None) -> ProcessUse | None:
    """Write what a process uses."""
    return None if value is None else ProcessUse(**_figures(value))


def gpu_use(gpu: Gpu) -> GpuUse:
    """Write a GPU; what is not known stays empty."""
    groups = (gpu.load, gpu.power, gpu.errors, gpu.links)
    figures = {name: value for group in groups for name, value in _figures(group).items()}
    return GpuUse(
        uuid=gpu.uuid,
        name=gpu.name,
        index=gpu.index,
        **figures,
        **_clocks(gpu.clocks),
        process_memory_bytes=gpu.process_memory_bytes,
        processes=map(_process, gpu.processes),
        mig_enabled=gpu.mig_enabled,
        instances=map(_instance, gpu.instances),
        profile=_profile(gpu.profile),
    )


def _clocks(clocks: Clocks) -> dict[str, Any]:
    figures = _figures(clocks)
    figures.pop("reasons")
    return {
        **figures,
        "throttled": clocks.throttled,
        "clock_reasons": [_reason(reason) for reason in clocks.reasons or ()],
    }


def _reason(reason: Reason) -> ClockReason.ValueType:
    return ClockReason.Value(f"CLOCK_REASON_{reason.name}")


def _process(holder: Holder) -> GpuProcess:
    return GpuProcess(**_figures(holder))


def _instance(part: Instance) -> GpuInstance:
    return GpuInstance(**{**_figures(part), "profile": _profile(part.profile)})


def _profile(profile: Profile | None) -> GpuProfile | None:
    return None if profile is None else GpuProfile(**_figures(profile))


def _figures(value: Any) -> dict[str, Any]:
    """Return a value's fields; those of the message bear the same names."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
