"""Share one device's slots and cache between the replicas on it: who needs more gets more.

Each model's need is what its work would take if all slots of the device were one pool
(`Ahead.need`). Slots follow needs, with headroom that grows with their square root, as in staffing
by the square root rule (Halfin and Whitt, 1981): twice the traffic varies less than twice as much.
Needs that fall are believed slowly, so that a pause costs nobody its slots. Time is an argument.

R = replicas of the device, M = models of the fleet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from router_svc.core.types import Bools, Floats, Ints

_HOLD_S: Final = 3.0
"""A need that is gone is held for about so long."""
_SHORT: Final = 0.9
"""Who needs this share of its slots is short of them."""
_LARGE: Final = 0.2
"""A move of this share of all slots is made though nobody is short."""
_SEEN_S: Final = 2.0
"""Reports show a change after so long at the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device and what may be shared of it."""

    name: str
    replicas: Ints
    """(R,) Places in the fleet's arrays."""
    model: Ints
    """(R,) Each one's model."""
    most: Ints
    """(R,) Slots that each process has room for, and has when it starts."""
    slots: int
    kv_tokens: int
    """0: not shared."""
    least: int
    """Slots that no replica goes below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What every replica of a device shall have; (R,)."""

    slots: Ints
    kv_tokens: Ints
    """0: as it is."""
    changed: bool
    """False where it only tells again what was decided before."""


class Allocator:
    """One device's allocation. Mutable, one owner."""

    def __init__(self, device: Device, *, every_s: float, patience_s: float) -> None:
        """Change at most *every_s*; leave the device to others for *patience_s* who change it."""
        self.device = device
        self._every_s, self._patience_s = every_s, patience_s
        self._held = np.zeros(0)
        self._decided: Ints | None = None
        self._told = np.zeros(len(device.replicas), dtype=np.bool_)
        """Who has been told what was decided (R,)."""
        self._stepped_s = self._changed_s = self._yields_until_s = -np.inf

    def step(
        self, need: Floats, in_force: Floats, able: Bools, context_tokens: Floats, now_s: float
    ) -> Allocation | None:
        """Return what shall be told, None where nothing.

        *need* (M,) in slots; *in_force* (R,) as reported; *able* (R,) says who serves;
        *context_tokens* (R,) is the least cache that each can work with.
        """
        self._hold(need, now_s)
        self._told &= able
        if self._others_decide(in_force, able, now_s):
            return None
        if now_s - self._changed_s >= self._every_s:
            wanted = self._shares(able)
            if self._worth(wanted, in_force, need, able):
                self._decided, self._changed_s = wanted, now_s
                self._told[:] = able
                return self._allocation(context_tokens, changed=True)
        return self._again(in_force, able, context_tokens, now_s)

    def failed(self, k: int) -> None:
        """Note that replica *k* of the device could not be told; it is told again."""
        self._told[k] = False

    def _again(
        self, in_force: Floats, able: Bools, context_tokens: Floats, now_s: float
    ) -> Allocation | None:
        """Tell again who restarted, and has what its configuration says."""
        if self._decided is None:
            return None
        forgot = able & (in_force != self._decided) & (in_force == self.device.most)
        late = forgot & (now_s - self._changed_s > _SEEN_S)
        if not (late.any() or (able & ~self._told).any()):
            return None
        self._told |= able
        return self._allocation(context_tokens, changed=False)

    def _hold(self, need: Floats, now_s: float) -> None:
        passed_s = min(now_s - self._stepped_s, 1e3)
        self._stepped_s = now_s
        if len(self._held) != len(need):
            self._held = np.zeros(len(need))
        self._held = np.maximum(need, self._held * np.exp(-passed_s / _HOLD_S))

    def _others_decide(self, in_force: Floats, able: Bools, now_s: float) -> bool:
        """Whether somebody else allocates: slots are neither ours nor those of a fresh start.

        Of several routers the one whose changes the others see goes on; they wait, each as long
        as its own patience, and one of them takes over where nothing changes any more.
        """
        if now_s - self._changed_s > _SEEN_S:
            mine = self.device.most if self._decided is None else self._decided
            foreign = able & (in_force != mine) & (in_force != self.device.most)
            if foreign.any():
                self._decided = np.where(able, in_force, mine).astype(np.intp)
                self._told[:] = able
                self._yields_until_s = now_s + self._patience_s
        return now_s < self._yields_until_s

    def _worth(self, wanted: Ints, in_force: Floats, need: Floats, able: Bools) -> bool:
        """Whether to move: somebody is short who would get more, or much would move."""
        now = in_force if self._decided is None else self._decided
        moved = float(np.abs(wanted - now).sum()) / 2.0
        if now.sum() > self.device.slots:
            return True
        if moved < 1.0:
            return False
        own = need[self.device.model] / self._siblings(able)
        short = able & (own > _SHORT * now) & (wanted > now)
        return bool(short.any()) or moved >= _LARGE * self.device.slots

    def _siblings(self, able: Bools) -> Floats:
        """Return how many replicas of the same model serve on this device (R,)."""
        counts = np.bincount(self.device.model, able, len(self._held))
        siblings: Floats = np.maximum(counts, 1.0)[self.device.model]
        return siblings

    def _shares(self, able: Bools) -> Ints:
        """Divide the slots; who does not serve has the least."""
        held = self._held[self.device.model] / self._siblings(able) * able
        weight = (held + np.sqrt(held) + 0.1) * able
        most = np.where(able, self.device.most, self.device.least)
        return divided(self.device.slots, weight, self.device.least, most)

    def _allocation(self, context_tokens: Floats, *, changed: bool) -> Allocation:
        assert self._decided is not None
        slots, kv_tokens = self._decided, np.zeros(len(self._decided), dtype=np.intp)
        if self.device.kv_tokens:
            # A process that could not hold one full request could not work.
            spare = max(self.device.kv_tokens - float(context_tokens.sum()), 0.0)
            kv_tokens = (context_tokens + np.floor(spare * slots / slots.sum())).astype(np.intp)
        return Allocation(slots=slots, kv_tokens=kv_tokens, changed=changed)


def divided(total: int, weight: Floats, least: int, most: Ints | Sequence[int]) -> Ints:
    """Divide *total* whole slots by *weight* (R,), each from *least* to *most* (R,).

    By largest remainders. Where even the least of all is more than there is, each has the least.
    """
    most = np.maximum(np.asarray(most, dtype=np.float64), least)
    shares = np.full(len(weight), float(least))
    rest = min(float(total), float(most.sum())) - float(shares.sum())
    while rest > 1e-9:  # noqa: PLR2004 - rounding
        room = most - shares
        pull = np.where(room > 0.0, np.maximum(weight, 1e-9), 0.0)
        give = np.minimum(rest * pull / pull.sum(), room)
        shares += give
        rest -= float(give.sum())
    whole = np.floor(shares + 1e-9)
    missing = round(float(shares.sum() - whole.sum()))
    order = np.argsort(-(shares - whole), kind="stable")
    whole[order[:missing]] += 1.0
    return whole.astype(np.intp)
