"""Slots that follow needs, whole, within bounds, and not too often."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from router_svc.core.allocate import Allocation, Allocator, Device, divided
from router_svc.core.types import Floats

DEVICE = Device(
    name="gpu",
    replicas=np.arange(3),
    model=np.arange(3),
    most=np.array([16, 16, 16]),
    slots=24,
    kv_tokens=0,
    least=2,
)
EVEN = (4.0, 4.0, 4.0)


@dataclass(slots=True)
class Small:
    """A device whose processes do what they are told at once."""

    device: Device = DEVICE
    routers: int = 1
    in_force: list[float] = field(default_factory=lambda: [16.0, 16.0, 16.0])
    able: list[bool] = field(default_factory=lambda: [True, True, True])
    now_s: float = 0.0
    made: list[tuple[float, int, Allocation]] = field(default_factory=list)
    """When, by which router, what."""
    allocators: list[Allocator] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def run(self, need: tuple[float, ...], for_s: float) -> list[float]:
        """Let time pass; return what is in force in the end."""
        if not self.allocators:
            self.allocators = [
                Allocator(self.device, every_s=2.0, patience_s=20.0 + 10.0 * i)
                for i in range(self.routers)
            ]
        for _ in range(round(for_s / 0.5)):
            self.now_s += 0.5
            for r, allocator in enumerate(self.allocators):
                self._step(r, allocator, np.array(need))
        return self.in_force

    def _step(self, r: int, allocator: Allocator, need: Floats) -> None:
        able, seen = np.array(self.able), np.array(self.in_force)
        if self.routers > 1:
            # No two routers know the same.
            need = need * self.rng.lognormal(0.0, 0.3, len(need))
        found = allocator.step(need, seen, able, np.full(3, 512.0), self.now_s)
        if found is not None:
            self.made.append((self.now_s, r, found))
            self.in_force = np.where(able, found.slots, seen).tolist()

    @property
    def changed_at_s(self) -> list[float]:
        """When something was decided."""
        return [at_s for at_s, _, found in self.made if found.changed]


@pytest.mark.parametrize("total", [6, 7, 24, 48, 60])
def test_whole_slots_within_bounds_add_up(total: int) -> None:
    """Whatever the weights, the sum is the device's, as far as the bounds allow."""
    rng = np.random.default_rng(total)
    for _ in range(50):
        weight = rng.exponential(size=3) * rng.integers(0, 2, 3)
        slots = divided(total, weight, 2, [16, 16, 16])

        assert slots.sum() == min(max(total, 6), 48)
        assert slots.min() >= 2
        assert slots.max() <= 16


def test_slots_are_divided_by_weight() -> None:
    """In proportion above the least, the ceiling's rest to the others."""
    assert divided(24, np.array([1.0, 1.0, 1.0]), 1, [16, 16, 16]).tolist() == [8, 8, 8]
    assert divided(23, np.array([3.0, 1.0, 1.0]), 1, [30, 30, 30]).tolist() == [13, 5, 5]
    assert divided(24, np.array([9.0, 1.0, 1.0]), 1, [8, 16, 16]).tolist() == [8, 8, 8]


def test_a_device_is_never_given_out_twice() -> None:
    """Processes start with all that they have room for; the first step brings them down."""
    small = Small()

    assert sum(small.run(EVEN, 0.5)) == DEVICE.slots


def test_slots_follow_a_shift_of_the_mix_within_five_seconds() -> None:
    """The whole way from one model to the other, and the idle one keeps the least."""
    small = Small()
    before = list(small.run((12.0, 1.0, 1.0), 20.0))
    soon = list(small.run((0.0, 1.0, 12.0), 2.5))
    after = list(small.run((0.0, 1.0, 12.0), 2.5))
    end = small.run((0.0, 1.0, 12.0), 20.0)

    assert before[0] > before[2] + 8.0
    assert soon[2] > before[2]
    assert after[2] >= 10.0
    assert after[2] > 1.5 * before[2]
    assert end[2] >= 14.0
    assert end[0] >= DEVICE.least


def test_what_is_steady_stays() -> None:
    """Needs that vary by chance move nothing once slots suit them."""
    small, rng = Small(), np.random.default_rng(1)
    small.run((5.0, 3.0, 8.0), 10.0)
    first = len(small.changed_at_s)
    for _ in range(60):
        small.run(tuple(rng.normal([5.0, 3.0, 8.0], [0.5, 0.3, 0.8])), 0.5)

    assert first <= 2
    assert len(small.changed_at_s) <= first + 2


def test_changes_keep_their_distance() -> None:
    """At most one in `every_s`, however the needs jump."""
    small, rng = Small(), np.random.default_rng(2)
    for _ in range(100):
        small.run(tuple(rng.choice([0.0, 20.0], 3)), 0.5)

    assert len(small.changed_at_s) > 5
    assert min(np.diff(small.changed_at_s)) >= 2.0


def test_a_pause_costs_nobody_its_slots() -> None:
    """A second without requests moves nothing."""
    small = Small()
    before = list(small.run((12.0, 1.0, 1.0), 20.0))
    small.run((0.0, 0.0, 0.0), 1.0)

    assert small.run((12.0, 1.0, 1.0), 1.0) == before


def test_a_process_that_restarts_is_told_again() -> None:
    """It has what its configuration says until then; nothing else changes."""
    small = Small()
    before = list(small.run((12.0, 1.0, 1.0), 20.0))
    changes = len(small.changed_at_s)
    small.able[1] = False
    small.run((12.0, 1.0, 1.0), 0.5)
    small.able[1], small.in_force[1] = True, 16.0

    assert small.run((12.0, 1.0, 1.0), 1.0) == before
    assert len(small.changed_at_s) <= changes + 2


def test_who_does_not_serve_has_the_least() -> None:
    """Its slots help the others meanwhile."""
    small = Small()
    before = list(small.run((8.0, 8.0, 8.0), 20.0))
    small.able[0] = False
    small.run((8.0, 8.0, 8.0), 5.0)
    asked = small.made[-1][2].slots.tolist()

    assert before == [8.0, 8.0, 8.0]
    assert asked == [2, 11, 11]


def test_of_several_routers_one_allocates() -> None:
    """The others see its changes and leave the device to it; when it is gone one takes over."""
    small, rng = Small(routers=3), np.random.default_rng(3)

    def deciders(for_s: float) -> set[int]:
        for _ in range(round(for_s / 0.5)):
            small.run(tuple(rng.choice([1.0, 16.0], 3)), 0.5)
        return {r for at_s, r, found in small.made if found.changed and at_s > small.now_s - 15.0}

    first = deciders(40.0)
    assert len(first) == 1
    # It is gone: what it was is nobody now.
    del small.allocators[first.pop()]
    assert len(deciders(80.0)) == 1
    assert min(np.diff([at_s for at_s in small.changed_at_s if at_s > 100.0])) >= 2.0


def test_replicas_of_one_model_share_its_need() -> None:
    """Two of the coder and one of the reasoner, each in need of eight: four for each coder."""
    device = Device(
        name="gpu",
        replicas=np.arange(3),
        model=np.array([0, 0, 1]),
        most=np.array([16, 16, 16]),
        slots=20,
        kv_tokens=0,
        least=1,
    )
    slots = Small(device=device).run((8.0, 8.0), 10.0)

    assert abs(slots[0] - slots[1]) <= 1.0
    assert slots[2] > 1.4 * max(slots[:2])
    assert sum(slots) == 20.0


def test_cache_goes_with_slots_and_everybody_can_work() -> None:
    """Each keeps one full request's; the rest is shared as the slots are."""
    device = Device(
        name="gpu",
        replicas=np.arange(3),
        model=np.arange(3),
        most=np.array([16, 16, 16]),
        slots=24,
        kv_tokens=6000,
        least=2,
    )
    small = Small(device=device)
    small.run((12.0, 1.0, 1.0), 10.0)
    tokens = small.made[-1][2].kv_tokens

    assert tokens.sum() <= 6000
    assert tokens.min() >= 512
    assert tokens[0] > 2 * tokens[1]
    assert Small().device.kv_tokens == 0
