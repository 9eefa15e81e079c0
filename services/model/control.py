"""`zeta.model.v1.ModelControlService`: the process's state and settings."""

import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic, time

from google.protobuf.timestamp_pb2 import Timestamp
from zeta.model.v1 import model_control_service_pb2 as control
from zeta.model.v1 import model_control_service_pb2_grpc

from services.kit import rpc
from services.kit.errors import invalid
from services.model import wire
from services.model.engine.types import Limits
from services.model.loop import DeviceLoop
from services.model.servicer import Model


class ControlServicer(model_control_service_pb2_grpc.ModelControlServiceServicer):
    """Controls one model process; *stop_serving* tells health checkers that it drains."""

    def __init__(
        self, model: Model, device: DeviceLoop, *, stop_serving: Callable[[], Awaitable[None]]
    ) -> None:
        self._model, self._device, self._stop_serving = model, device, stop_serving
        self._most = device.limits
        self._weight = 1.0
        self._started_s = time()

    async def GetState(  # noqa: N802 - the contract's name
        self, request: control.GetStateRequest, context: rpc.Context
    ) -> control.GetStateResponse:
        """Return counters and settings."""
        del request, context
        return control.GetStateResponse(state=self._state())

    async def SetAllocation(  # noqa: N802 - the contract's name
        self, request: control.SetAllocationRequest, context: rpc.Context
    ) -> control.SetAllocationResponse:
        """Change what may run, between two steps. The weight is kept for whoever shares devices."""
        del context
        asked = request.allocation
        if not (math.isfinite(asked.weight) and asked.weight >= 0):
            raise invalid("allocation.weight", f"must be finite, at least 0, got {asked.weight:g}")
        self._device.allocate(_clamped(asked, self._device.limits, self._most, self._model))
        self._weight = asked.weight or self._weight
        return control.SetAllocationResponse(allocation=self._allocation())

    async def Drain(  # noqa: N802 - the contract's name
        self, request: control.DrainRequest, context: rpc.Context
    ) -> control.DrainResponse:
        """Refuse new work, wait for the rest, cut off what is late."""
        del context
        grace_s = request.grace.ToTimedelta().total_seconds() if request.HasField("grace") else None
        if grace_s is not None and grace_s < 0:
            raise invalid("grace", f"must not be negative, got {grace_s:g} s")
        await self._stop_serving()
        finished, cut = await self._device.drain(grace_s)
        return control.DrainResponse(finished=finished, cut=cut)

    def _state(self) -> control.ModelState:
        device, totals, held = self._device, self._device.state.totals, self._device.occupancy
        started = Timestamp()
        started.FromNanoseconds(int(self._started_s * 1e9))
        waiting = device.waiting()
        step_time_s = device.state.step_time_s(monotonic())
        return control.ModelState(
            model=self._model.name,
            replica=self._model.replica,
            pid=os.getpid(),
            started=started,
            draining=device.draining,
            running=held.running,
            waiting=len(waiting),
            waiting_prompt_tokens=held.unfed_tokens + sum(r.feed_tokens for r in waiting),
            allocation=self._allocation(),
            kv_used_tokens=held.kv_used_tokens,
            requests_total=totals.requests,
            errors_total=totals.errors,
            cancelled_total=totals.cancelled,
            prompt_tokens_total=totals.prompt_tokens,
            completion_tokens_total=totals.completion_tokens,
            steps_total=totals.steps,
            busy_total=wire.duration(totals.busy_s),
            step_time=None if step_time_s is None else wire.duration(step_time_s),
            tasks=[wire.task_stats(k, s) for k, s in sorted(device.state.tasks.items())],
            context_tokens=self._model.context_tokens,
            capabilities=self._model.capabilities,
        )

    def _allocation(self) -> control.Allocation:
        limits = self._device.limits
        return control.Allocation(
            max_running=limits.max_running, kv_tokens=limits.kv_tokens, weight=self._weight
        )


def _clamped(asked: control.Allocation, now: Limits, most: Limits, model: Model) -> Limits:
    """Return *asked*, no more than the cache's buffers hold and no less than one full request."""
    return replace(
        now,
        max_running=min(asked.max_running or now.max_running, most.max_running),
        kv_tokens=min(max(asked.kv_tokens or now.kv_tokens, model.context_tokens), most.kv_tokens),
    )
