"""What is decided reaches the processes: who gets less first, and again who missed it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from router_svc.allocation import Allocations
from router_svc.core.ahead import Ahead
from router_svc.core.decide import decide
from router_svc.core.plan import models_of
from router_svc.core.types import Policy
from router_svc.fleet import Fleet, Lease
from services.kit.config import Device, FleetConfig, Router
from services.kit.errors import UnavailableError
from tests.unit.router_svc.fixtures import ManualClock, ask, candidates, models

LAYOUT = {"a": 1, "b": 1, "c": 1}
NAMES = ("a-0", "b-0", "c-0")


@dataclass(slots=True)
class Processes:
    """Model processes of four slots that take what they are told, or fail."""

    slots: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 4))
    most: int = 0
    """The largest sum that was ever in force, from the first call on."""
    failing: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    async def tell(self, replica: str, slots: int, kv_tokens: int) -> int:
        """As `Upstreams.allocate`."""
        self.calls.append(replica)
        if replica in self.failing:
            raise UnavailableError("gone")
        assert kv_tokens == 0
        self.slots[replica] = slots
        if len(self.calls) > len(NAMES):
            self.most = max(self.most, sum(self.slots.values()))
        return slots


@dataclass(slots=True)
class World:
    """A fleet of three on one device of eight slots."""

    clock: ManualClock
    fleet: Fleet
    ahead: Ahead
    processes: Processes
    allocations: Allocations

    async def run(self, quality: list[float], for_s: float) -> Mapping[str, int]:
        """Let eight requests a second of half a second come; return what is in force."""
        rng, running = np.random.default_rng(0), deque[Lease]()
        found = replace(candidates(quality), work_s=[0.5] * 3)
        for _ in range(round(for_s / 0.25)):
            self.clock.now_s += 0.25
            while len(running) > 2:
                self.fleet.end(running.popleft())
            for _ in range(2):
                policy = Policy(explore_ratio=0.0, max_calls=1)
                decision = decide(ask(), found, policy, rng, gains={})
                self.ahead.decided(decision, ask(), self.clock())
                (model,) = models_of(decision.plan)
                running.append(self.fleet.begin(f"{model}-0", 5.0, 10.0))
            self.ahead.step(self.fleet.replicas(), self.clock())
            await self.allocations.step()
        for lease in running:
            self.fleet.end(lease)
        return self.processes.slots


def world() -> World:
    """All three serve."""
    clock, processes = ManualClock(), Processes()
    configured = models(LAYOUT)
    device = Device(name="gpu", replicas=NAMES, slots=8)
    config = FleetConfig(models=configured, devices=(device,))
    fleet = Fleet(configured, Router(), clock)
    for name in NAMES:
        fleet.health(name, serving=True)
    ahead = Ahead(fleet.models, target=0.9)
    allocations = Allocations(
        config, fleet, ahead, processes.tell, rng=np.random.default_rng(1), clock=clock
    )
    return World(
        clock=clock, fleet=fleet, ahead=ahead, processes=processes, allocations=allocations
    )


async def test_slots_follow_the_mix_and_never_exceed_the_device() -> None:
    """At no moment do the processes together have more than the device."""
    small = world()
    first = dict(await small.run([0.9, 0.5, 0.5], 10.0))
    second = dict(await small.run([0.5, 0.5, 0.9], 10.0))

    assert first["a-0"] > first["c-0"]
    assert second["c-0"] > second["a-0"]
    assert sum(second.values()) == 8
    assert small.processes.most <= 8


async def test_the_fleet_knows_what_is_in_force() -> None:
    """Predictions and prices go by the slots that there are now, not by the next report."""
    small = world()
    slots = await small.run([0.9, 0.5, 0.5], 5.0)

    assert small.fleet.replicas().loads.max_running.tolist() == [slots[n] for n in NAMES]


async def test_who_could_not_be_told_is_told_again() -> None:
    """The others have their slots meanwhile."""
    small = world()
    small.processes.failing = {"b-0"}
    await small.run([0.9, 0.5, 0.5], 3.0)
    missed = small.processes.slots["b-0"]
    small.processes.failing = set()
    await small.run([0.9, 0.5, 0.5], 3.0)

    assert missed == 4
    assert sum(small.processes.slots.values()) == 8


async def test_without_a_device_nobody_is_told_anything() -> None:
    """As most fleets have it."""
    small = world()
    config = FleetConfig(models=models(LAYOUT))
    processes = Processes()
    await Allocations(config, small.fleet, small.ahead, processes.tell, clock=small.clock).step()

    assert not processes.calls
