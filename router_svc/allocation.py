"""Divide what replicas share of a device, as `core.allocate` decides, and tell the processes.

Who gets less is told first, so that the sum stays within the device's. A process that restarts has
what its configuration says until it is told again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import structlog

from router_svc import metrics
from router_svc.core.ahead import Ahead
from router_svc.core.allocate import Allocation, Allocator, Device
from router_svc.core.types import Replicas
from router_svc.fleet import Fleet
from services.kit import aio
from services.kit.config import Device as Settings
from services.kit.config import FleetConfig, model_named
from services.kit.errors import ZetaError

log = structlog.get_logger()

Tell: TypeAlias = Callable[[str, int, int], Awaitable[int]]
"""(replica, slots, cache tokens or 0) to the slots in force. Raises ZetaError."""

_EVERY_S: Final = 0.5
_PATIENCE_S: Final = (20.0, 40.0)
"""Each router's own, between these: of several only one takes over from one that is gone."""


class Allocations:
    """Every device of the configuration. Owned by the event loop; *clock* is monotonic seconds."""

    def __init__(
        self,
        config: FleetConfig,
        fleet: Fleet,
        ahead: Ahead,
        tell: Tell,
        *,
        rng: np.random.Generator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet, self._ahead, self._tell = fleet, ahead, tell
        self._clock = clock
        rng = rng or np.random.default_rng()
        self._allocators = [
            Allocator(
                device_of(config, fleet, each),
                every_s=each.change_every_s,
                patience_s=float(rng.uniform(*_PATIENCE_S)),
            )
            for each in config.devices
        ]

    async def run(self) -> None:
        """Allocate for ever."""
        while True:
            await self.step()
            await asyncio.sleep(_EVERY_S)

    async def step(self) -> None:
        """Divide every device anew where that is worth it."""
        for allocator in self._allocators:
            replicas = self._fleet.replicas()
            found = decided(allocator, replicas, self._ahead, self._clock())
            if found is not None:
                await self._carry_out(allocator, found, replicas)

    async def _carry_out(self, allocator: Allocator, found: Allocation, replicas: Replicas) -> None:
        device = allocator.device
        names = [replicas.names[i] for i in device.replicas.tolist()]
        if found.changed:
            slots = dict(zip(names, found.slots.tolist(), strict=True))
            log.info("allocated", device=device.name, slots=slots)
            metrics.ALLOCATIONS.labels(device.name).inc()
        less = found.slots < replicas.loads.max_running[device.replicas]
        for now in (less, ~less):
            rows = np.flatnonzero(now & replicas.healthy[device.replicas]).tolist()
            await aio.all_of(*(self._give(allocator, found, k, names) for k in rows))

    async def _give(
        self, allocator: Allocator, found: Allocation, k: int, names: Sequence[str]
    ) -> None:
        replica, device = names[k], allocator.device.name
        try:
            slots = await self._tell(replica, int(found.slots[k]), int(found.kv_tokens[k]))
        except ZetaError as error:
            allocator.failed(k)
            log.warning("not allocated", device=device, replica=replica, error=str(error))
            return
        self._fleet.allocated(replica, slots)
        metrics.ALLOCATED.labels(device, replica).set(slots)


def device_of(config: FleetConfig, fleet: Fleet, settings: Settings) -> Device:
    """Return a device as it is configured."""
    places = np.array([fleet.index(name) for name in settings.replicas], dtype=np.intp)
    model = fleet.model_of[places]
    most = [model_named(config, fleet.models[m]).max_running for m in model.tolist()]
    return Device(
        name=settings.name,
        replicas=places,
        model=model,
        most=np.array(most, dtype=np.intp),
        slots=settings.slots,
        kv_tokens=settings.kv_tokens,
        least=settings.least_slots,
    )


def decided(
    allocator: Allocator, replicas: Replicas, ahead: Ahead, now_s: float
) -> Allocation | None:
    """Return what shall be told by what is known now, None where nothing."""
    device = allocator.device
    return allocator.step(
        ahead.need(_models_of(device, replicas), float(device.slots)),
        replicas.loads.max_running[device.replicas],
        replicas.healthy[device.replicas],
        _contexts(device, replicas),
        now_s,
    )


def _models_of(device: Device, replicas: Replicas) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Say which models (M,) have replicas on *device*."""
    found = np.zeros(len(replicas.models), dtype=np.bool_)
    found[device.model] = True
    return found


def _contexts(device: Device, replicas: Replicas) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the longest request of each replica (R,); 0 where it is not known."""
    tokens = replicas.context_tokens[device.replicas]
    return np.where(np.isfinite(tokens), tokens, 0.0)
