"""Which sequence is in which slot.

Decoding sequences are always slots 0 … n-1, so that a step runs exactly the active rows; at most
one sequence is part-way through its prompt, and it is in slot n.
"""

from dataclasses import dataclass, field

from services.model.engine.types import Copy, Sequence


@dataclass(slots=True)
class Slots:
    """The slots of one backend."""

    decoding: list[Sequence] = field(default_factory=list)
    prefilling: Sequence | None = None

    @property
    def held(self) -> list[Sequence]:
        """Every sequence that has a slot, by slot."""
        return [*self.decoding, self.prefilling] if self.prefilling else list(self.decoding)

    def start(self, sequence: Sequence) -> None:
        """Give *sequence* the slot after the decoding ones, to be fed its prompt."""
        assert self.prefilling is None, "one prompt at a time"
        sequence.slot = len(self.decoding)
        self.prefilling = sequence

    def prompt_done(self) -> None:
        """Let the prefilling sequence decode from the next step on; it keeps its slot."""
        assert self.prefilling is not None
        self.decoding.append(self.prefilling)
        self.prefilling = None

    def remove(self, sequence: Sequence) -> list[Copy]:
        """Free a slot; the returned copies, done in order, close the gap."""
        copies: list[Copy] = []
        if sequence is self.prefilling:
            self.prefilling = None
        else:
            last = self.decoding.pop()
            if last is not sequence:
                self.decoding[sequence.slot] = last
                copies.append(_moved(last, sequence.slot))
            if self.prefilling:
                copies.append(_moved(self.prefilling, len(self.decoding)))
        sequence.slot = -1
        return [copy for copy in copies if copy.length]


def _moved(sequence: Sequence, slot: int) -> Copy:
    copy = Copy(sequence.slot, slot, sequence.cached)
    sequence.slot = slot
    return copy
