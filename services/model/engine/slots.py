"""Which sequence is in which slot, and what the free slots still hold.

Decoding sequences are always slots 0 … n-1, so that a step runs exactly the active rows; at most
one sequence is part-way through its prompt, and it is in slot n. The slots behind keep what ended
sequences left there, until they are needed: a sequence that begins with the same tokens does not
feed them again. A beginning that a running sequence holds serves as well.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from services.model.backends.base import Backend
from services.model.engine.types import Ids, Sequence

MIN_PREFIX_TOKENS = 16
"""Shorter beginnings are fed again: moving them about saves nothing."""


class Slots:
    """The slots of one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.decoding: list[Sequence] = []
        self.prefilling: Sequence | None = None
        self.kept: dict[int, Ids] = {}
        """Tokens (T,) in the slots that no sequence holds, the least recently used first."""

    @property
    def held(self) -> list[Sequence]:
        """Every sequence that has a slot, by slot."""
        return [*self.decoding, self.prefilling] if self.prefilling else list(self.decoding)

    def start(self, sequence: Sequence) -> None:
        """Give *sequence* the slot after the decoding ones, with as much of it as is cached."""
        assert self.prefilling is None, "one prompt at a time"
        slot = len(self.decoding)
        source, length = self._longest_prefix(sequence)
        if source in self.kept:
            self.kept[source] = self.kept.pop(source)
        if source in self.kept and length >= len(self.kept[source]) - 1:
            # All of it goes on in this sequence: it need not be kept twice.
            self._swap_kept(source, slot)
        else:
            self._displace(slot)
            if length and source != slot:
                self._backend.copy(source, slot, length)
        self.kept.pop(slot, None)
        sequence.slot, sequence.cached, sequence.reused = slot, length, length
        self.prefilling = sequence

    def fork(self, source: Sequence, twin: Sequence) -> None:
        """Let *twin* decode with the whole prompt that *source*, which decodes, has fed."""
        assert self.prefilling is None, "one prompt at a time"
        slot, length = len(self.decoding), source.cached
        self._displace(slot)
        self._backend.copy(source.slot, slot, length)
        self.kept.pop(slot, None)
        twin.slot, twin.cached, twin.reused = slot, length, length
        self.decoding.append(twin)

    def prompt_done(self) -> None:
        """Let the prefilling sequence decode from the next step on; it keeps its slot."""
        assert self.prefilling is not None
        self.decoding.append(self.prefilling)
        self.prefilling = None

    def remove(self, sequence: Sequence) -> None:
        """Free a slot, close the gap, and keep what was in it behind those that are held."""
        if sequence is self.prefilling:
            self.prefilling = None
        else:
            last = self.decoding.pop()
            if last is not sequence:
                self.decoding[sequence.slot] = last
                self._swap(sequence, last)
            if self.prefilling:
                self._swap(sequence, self.prefilling)
        self._keep(sequence.slot, sequence.held)
        sequence.slot, sequence.cached = -1, 0

    def _longest_prefix(self, sequence: Sequence) -> tuple[int, int]:
        """Return the slot that holds most of the beginning of *sequence*, and how much of it."""
        # Whoever wants logits must feed the token before them.
        wanted = sequence.history[: sequence.first_wanted]
        found = ((_common(wanted, tokens), slot) for slot, tokens in self._contents())
        length, slot = max(found, default=(0, -1))
        return (slot, length) if length >= MIN_PREFIX_TOKENS else (-1, 0)

    def _contents(self) -> Iterator[tuple[int, Ids]]:
        yield from self.kept.items()
        for sequence in self.held:
            yield sequence.slot, sequence.held

    def _displace(self, slot: int) -> None:
        """Move what *slot* keeps to where nothing is, or what is there was used longer ago."""
        other = self._least_useful(slot)
        if slot in self.kept and other != slot:
            self._backend.copy(slot, other, len(self.kept[slot]))
            self.kept.pop(other, None)
            self._rename({slot: other})

    def _swap_kept(self, one: int, other: int) -> None:
        if one != other:
            length = max(len(self.kept[one]), len(self.kept.get(other, ())))
            self._backend.swap(one, other, length)
            self._rename({one: other, other: one})

    def _rename(self, slots: Mapping[int, int]) -> None:
        """Note that what was kept in a slot is in another now, no sooner to go than before."""
        self.kept = {slots.get(slot, slot): tokens for slot, tokens in self.kept.items()}

    def _swap(self, one: Sequence, other: Sequence) -> None:
        self._backend.swap(one.slot, other.slot, max(one.cached, other.cached))
        one.slot, other.slot = other.slot, one.slot

    def _keep(self, slot: int, tokens: Ids) -> None:
        """Note that *slot* keeps *tokens*, unless another keeps them already."""
        for other, kept in list(self.kept.items()):
            common = _common(kept, tokens)
            if common == len(kept):
                del self.kept[other]
            elif common == len(tokens):
                return
        if len(tokens) >= MIN_PREFIX_TOKENS:
            self.kept[slot] = tokens.copy()

    def _least_useful(self, first: int) -> int:
        """Return a slot from *first* on that keeps nothing, or else was used longest ago."""
        for slot in range(first, self._backend.slots):
            if slot not in self.kept:
                return slot
        return next(iter(self.kept))


def _common(one: Ids, other: Ids) -> int:
    """Return how many tokens two sequences begin with alike."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
