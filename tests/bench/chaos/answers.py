"""What a stream may be, whatever happens to the fleet behind it; no I/O.

Laws of a stream: `Started` once and first, deltas numbered from 1 without a gap or a repeat,
nothing behind `Finished`, as many tokens as it says; or an error of a documented kind. Greedy
answers are known beforehand: what one model gave alone is to the letter what it gives undisturbed,
and what it gave before another took over is how its undisturbed answer begins.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from zeta.inference.v1.inference_service_pb2 import ErrorReason, GenerateResponse

from services.kit.errors import ZetaError

REASONS = frozenset(name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:])
"""Every reason that the contract knows."""
NEVER = frozenset({"INTERNAL", "INVALID_FIELD", "NOT_IMPLEMENTED", "CONTEXT_TOO_LONG"})
"""Documented, and yet nothing that breaks may lead there."""

LATER = frozenset({"NO_REPLICA", "DRAINING", "OVERLOADED"})
"""Refusals that say when to come again."""

Known = Mapping[tuple[str, str], str]
"""(question, model) to the undisturbed answer."""


@dataclass(slots=True, kw_only=True)
class Stream:
    """One request and all that came of it."""

    question: str
    model: str = ""
    """The only model that was allowed; empty: any."""
    path: str = ""
    """How the caller reached the router: "direct", "network" or "mortal"."""
    events: list[GenerateResponse] = field(default_factory=list)
    error: ZetaError | None = None
    bare: bool = False
    """Whether the error had no details: gRPC's own, not ours."""
    late: bool = False
    """Whether the caller's deadline had passed when it ended."""
    over: bool = False
    """Whether it has ended."""

    @property
    def begun(self) -> bool:
        """Whether the caller had anything of the answer."""
        return bool(self.events)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(event.delta.text for event in self.events)

    @property
    def name(self) -> str:
        """Say which it is."""
        return f"{self.path} {self.question!r} {self.model or 'any'}"

    @property
    def end(self) -> str:
        """Name how it ended, for counting."""
        if self.error is None:
            return "finished"
        if self.late:
            return "too late"
        return f"{'broken' if self.begun else 'refused'}: {self.error.reason}"


def faults(stream: Stream, known: Known) -> Iterator[str]:
    """Yield every law that *stream* breaks."""
    kinds = [str(event.WhichOneof("event")) for event in stream.events]
    if kinds.count("started") > 1 or (kinds and kinds[0] != "started"):
        yield f"started {kinds.count('started')} times, first came {kinds[0]}"
    if "finished" in kinds[:-1]:
        yield "something came behind the end"
    seqs = [e.delta.seq for e in stream.events if e.HasField("delta")]
    if seqs != list(range(1, len(seqs) + 1)):
        yield f"deltas are not numbered from 1 on: {_break_in(seqs)}"
    yield from _wrong_end(stream, finished=bool(kinds) and kinds[-1] == "finished")
    yield from _wrong_text(stream, known)


def ends(streams: Iterable[Stream]) -> Counter[str]:
    """Count streams by how they ended."""
    return Counter(stream.end for stream in streams)


def _wrong_end(stream: Stream, *, finished: bool) -> Iterator[str]:
    error = stream.error
    if error is None:
        if not finished:
            yield "ended well without its last event"
        else:
            said = stream.events[-1].finished.usage.completion_tokens
            came = sum(len(event.delta.token_ids) for event in stream.events)
            if said != came:
                yield f"{came} tokens came, {said} were said"
    elif finished:
        yield f"finished, and failed: {error}"
    elif error.reason not in REASONS or error.reason in NEVER:
        yield f"ended with {error.reason}: {error}"
    elif stream.path == "direct" and not stream.late:
        if stream.bare:
            yield f"ended with a status without details: {error}"
        if not stream.begun and error.reason in LATER and error.retry_after_s is None:
            yield f"refused without a word about when to retry: {error}"


def _wrong_text(stream: Stream, known: Known) -> Iterator[str]:
    """Compare with the undisturbed answers of the first model and of the only one."""
    if not stream.events:
        return
    first = stream.events[0].started.model
    changes = [e.handover for e in stream.events if e.HasField("handover")]
    moved = next((c.after_seq for c in changes if c.to_model != first), None)
    own = stream.text
    if moved is not None:
        own = "".join(e.delta.text for e in stream.events if 0 < e.delta.seq <= moved)
    whole = known[stream.question, first]
    if moved is None and stream.error is None:
        if own != whole:
            yield f"{first} answered {own[:80]!r}…, undisturbed {whole[:80]!r}…"
    elif not whole.startswith(own):
        yield f"{first} began with {own[:80]!r}…, undisturbed {whole[:80]!r}…"


def _break_in(seqs: list[int]) -> str:
    at = next(i for i, seq in enumerate(seqs) if seq != i + 1)
    return f"…{seqs[max(at - 2, 0) : at + 2]}…"
