"""One step after another: plan, run, choose, commit.

Owned by one thread. The clock is the caller's: `expire` is told the time.
"""

import heapq
from collections.abc import Iterator

import numpy as np

from services.model.backends.base import Backend, Decoded, Encodes, Logits
from services.model.engine import pooling, ranked, sampler
from services.model.engine.commit import commit
from services.model.engine.schedule import Waiting, next_to_yield, plan_chunks
from services.model.engine.slots import Slots
from services.model.engine.types import (
    Chunk,
    Embedded,
    Failed,
    Generated,
    Limits,
    Occupancy,
    Output,
    Request,
    Scored,
    Sequence,
    StepResult,
)


class Engine:
    """Continuous batching over one backend."""

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self.limits = limits
        self._backend = backend
        self._waiting, self._slots = Waiting(), Slots(backend)
        self._sequences: dict[int, Sequence] = {}
        self._deadlines: list[tuple[float, int]] = []

    @property
    def idle(self) -> bool:
        """True where a step would do nothing."""
        return not self._sequences

    def add(self, request: Request) -> None:
        """Queue *request*; it fits in a slot and in `limits.kv_tokens`."""
        assert request.reserved_tokens <= self._backend.context_tokens, "checked at the edge"
        sequence = Sequence(request=request)
        self._sequences[request.id] = sequence
        self._waiting.add(sequence)
        if request.deadline_s != float("inf"):
            self._remember_deadline(request)

    def cancel(self, request_id: int) -> bool:
        """Forget a request and free its slot; False where it had ended already."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None:
            return False
        if sequence.slot < 0:
            self._waiting.remove(sequence)
        else:
            self._slots.remove(sequence)
        return True

    def expire(self, now_s: float) -> list[int]:
        """Cancel every request whose deadline has passed; return their ids."""
        expired: list[int] = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, request_id = heapq.heappop(self._deadlines)
            if self.cancel(request_id):
                expired.append(request_id)
        return expired

    def step(self) -> StepResult:
        """Feed prompts and decode every running row once; return what came of it."""
        preempted = self._preempt()
        rows = list(self._slots.decoding)
        chunks = plan_chunks(self._waiting, self._slots, self.limits)
        fed = list(self._fed(chunks))
        ready = [
            (c.sequence, found) for c, found in fed if c.completes and c.sequence.request.generates
        ]
        decoded = self._decode(rows) if rows else None
        sequences = [*rows, *(sequence for sequence, _ in ready)]
        generated = self._choose(decoded, [found for _, found in ready], sequences)
        return StepResult(
            began=_began([chunk.sequence for chunk, _ in fed]),
            outputs=[*self._scores(fed), *self._vectors(fed), *generated],
            prompt_tokens=sum(c.stop - c.start for c, _ in fed),
            generated=sum(isinstance(o, Generated) for o in generated),
            decoded_rows=len(rows),
            preempted=preempted,
        )

    def occupancy(self) -> Occupancy:
        """Return what is held now."""
        held, part = self._slots.held, self._slots.prefilling
        preempted = frozenset(s.request.id for s in self._waiting.queue if s.began)
        return Occupancy(
            running=len(held),
            preempted=preempted,
            unfed_tokens=part.feed_tokens - part.cached if part else 0,
            kv_used_tokens=sum(s.cached for s in held),
        )

    def _remember_deadline(self, request: Request) -> None:
        heapq.heappush(self._deadlines, (request.deadline_s, request.id))
        # Requests mostly end long before their deadline: do not keep those deadlines.
        if len(self._deadlines) > 2 * len(self._sequences) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._sequences]
            heapq.heapify(self._deadlines)

    def _preempt(self) -> int:
        count = 0
        while sequence := next_to_yield(self._waiting, self._slots, self.limits):
            self._slots.remove(sequence)
            sequence.logprob, sequence.pooled = 0.0, None
            self._waiting.add(sequence)
            count += 1
        return count

    def _fed(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, Logits]]:
        logits: Logits | None = None
        for chunk in chunks:
            logits = self._prefill(chunk) if chunk.start < chunk.stop else logits
            assert logits is not None, "what is shared comes after what was fed"
            yield chunk, logits

    def _prefill(self, chunk: Chunk) -> Logits:
        sequence = chunk.sequence
        tokens = sequence.history[chunk.start : chunk.stop]
        if sequence.request.pool is not None:
            assert isinstance(self._backend, Encodes), "checked at the edge"
            return self._backend.hidden(sequence.slot, chunk.start, tokens, chunk.wanted)
        return self._backend.prefill(sequence.slot, chunk.start, tokens, chunk.wanted)

    def _decode(self, rows: list[Sequence]) -> Decoded:
        tokens = np.array([s.last for s in rows], np.int64)
        lengths = np.array([s.cached for s in rows], np.int64)
        decoded = self._backend.decode(tokens, lengths)
        for sequence in rows:
            sequence.cached += 1
        return decoded

    def _choose(
        self, decoded: Decoded | None, prompts: list[Logits], sequences: list[Sequence]
    ) -> list[Output]:
        if not sequences:
            return []
        choices = ranked.together(decoded, prompts, sequences)
        tokens, logprobs = choices.tokens.tolist(), choices.logprobs.tolist()
        out: list[Output] = []
        for s, token, logprob, top in zip(sequences, tokens, logprobs, choices.top, strict=True):
            finish = commit(s, token)
            if s.matcher is not None and s.matcher.error:
                out.append(Failed(s.request.id, s.matcher.error))
            else:
                out.append(Generated(s.request.id, token, logprob, top, finish))
            if out[-1].ends:
                self.cancel(s.request.id)
        return out

    def _scores(self, fed: list[tuple[Chunk, Logits]]) -> list[Scored]:
        out: list[Scored] = []
        for chunk, logits in fed:
            sequence = chunk.sequence
            if not sequence.request.scored_tokens:
                continue
            first = chunk.stop - len(logits) + 1
            tokens = sequence.request.tokens[first : chunk.stop + 1]
            sequence.logprob += sampler.score(logits, tokens)
            if chunk.completes:
                del self._sequences[sequence.request.id]
                out.append(Scored(sequence.request.id, sequence.logprob))
        return out

    def _vectors(self, fed: list[tuple[Chunk, Logits]]) -> list[Embedded]:
        out: list[Embedded] = []
        for chunk, rows in fed:
            request = chunk.sequence.request
            if request.pool is None:
                continue
            pooling.add(chunk, rows)
            if chunk.completes:
                del self._sequences[request.id]
                out.append(Embedded(request.id, pooling.result(chunk)))
        return out


def _began(fed: list[Sequence]) -> dict[int, int]:
    """Mark those of *fed* that never were before; return how much of each was reused."""
    new = [s for s in fed if not s.began]
    for sequence in new:
        sequence.began = True
    return {s.request.id: s.reused for s in new}
