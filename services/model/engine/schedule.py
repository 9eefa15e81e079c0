"""Which requests run in the next step, and on how many tokens.

Every decoding sequence gets its one token in every step, so that a long prompt never stalls a
stream; prompts share the rest, `chunk_tokens` per step, one after the other; a prompt that several
requests in a row share, as the samples of one do, is fed once. Waiting requests start by rank, then
arrival; the first one that does not fit holds back those behind it, so that a large request is
never starved by small ones. An urgent one takes the place of others, and so does a smaller limit:
they wait again, keep their answers, and go on by feeding it anew.
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.model.engine.slots import Slots
from services.model.engine.types import Chunk, Limits, Sequence

URGENT_RANK = 0
"""Requests of this rank take the places of others."""


@dataclass(slots=True)
class Waiting:
    """Requests without a slot, in the order in which they will start."""

    queue: list[Sequence] = field(default_factory=list)

    def add(self, sequence: Sequence) -> None:
        """Queue *sequence* behind its rank."""
        insort(self.queue, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Take *sequence* out, wherever it stands."""
        self.queue.remove(sequence)


def plan_chunks(waiting: Waiting, slots: Slots, limits: Limits) -> Iterator[Chunk]:
    """Yield the prompt pieces of one step, and give slots to the requests that start.

    A chunk that completes a prompt leaves its sequence among `slots.decoding`, to decode from the
    next step on; a score or vector needs no decoding and leaves its slot at once.
    """
    budget = limits.chunk_tokens
    while budget and (sequence := slots.prefilling or _started(waiting, slots, limits)):
        stop = min(sequence.cached + budget, sequence.feed_tokens)
        chunk = Chunk(sequence, sequence.cached, stop)
        budget -= stop - chunk.start
        yield chunk
        sequence.cached = stop
        if chunk.completes:
            _complete(sequence, slots)
            yield from _twins(sequence, waiting, slots, limits)


def _twins(fed: Sequence, waiting: Waiting, slots: Slots, limits: Limits) -> Iterator[Chunk]:
    """Start those next in line that wait with the prompt of *fed*, which needs no feeding again."""
    while _next_fits(waiting, slots, limits) and fed.same_prompt(waiting.queue[0]):
        twin = waiting.queue[0]
        waiting.remove(twin)
        slots.fork(fed, twin)
        yield Chunk(twin, twin.cached, twin.cached)


def _complete(sequence: Sequence, slots: Slots) -> None:
    if sequence.request.generates:
        slots.prompt_done()
    else:
        slots.remove(sequence)


def next_to_yield(waiting: Waiting, slots: Slots, limits: Limits) -> Sequence | None:
    """Return who has to give up its slot before the next step, the least important first.

    That is whoever is beyond the limits, and whoever is in an urgent request's way. Prompts go one
    at a time: as long as one is part-way, nobody yields to those behind it.
    """
    held = slots.held
    if len(held) > limits.max_running or _reserved(held) > limits.kv_tokens:
        return max(held, key=_order)
    if slots.prefilling or not waiting.queue or waiting.queue[0].request.rank != URGENT_RANK:
        return None
    urgent = waiting.queue[0]
    may_yield = [s for s in held if s.request.rank > URGENT_RANK]
    others = [s for s in held if s.request.rank == URGENT_RANK]
    if not may_yield or _fits(urgent, held, limits) or not _fits(urgent, others, limits):
        return None
    return max(may_yield, key=_order)


def _started(waiting: Waiting, slots: Slots, limits: Limits) -> Sequence | None:
    if not _next_fits(waiting, slots, limits):
        return None
    sequence = waiting.queue[0]
    waiting.remove(sequence)
    slots.start(sequence)
    return sequence


def _next_fits(waiting: Waiting, slots: Slots, limits: Limits) -> bool:
    return bool(waiting.queue) and _fits(waiting.queue[0], slots.decoding, limits)


def _fits(sequence: Sequence, beside: list[Sequence], limits: Limits) -> bool:
    reserved = _reserved([*beside, sequence])
    return len(beside) < limits.max_running and reserved <= limits.kv_tokens


def _reserved(sequences: list[Sequence]) -> int:
    return sum(s.request.reserved_tokens for s in sequences)


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.request.rank, sequence.request.id
