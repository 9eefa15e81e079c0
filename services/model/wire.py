"""Protobuf ⇄ values of the model service; every wrong field of a request is named at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.model.v1 import model_control_service_pb2 as control

from services.kit.errors import InvalidRequestError, NotBuiltError, Violation
from services.model.answer import Answer, Piece
from services.model.engine.types import FinishReason, Generated, Request, Sampling
from services.model.grammar import Constraint
from services.model.state import LatencySketch, TaskStats, Times
from services.model.text import Message

MAX_STOPS, MAX_TOP_LOGPROBS, MAX_CONTINUATIONS = 16, 20, 64
MAX_CONSTRAINT_BYTES, MAX_OPTIONS = 1 << 16, 1024
MAX_COUNTED_BYTES = 1 << 20
"""Far more than a context holds; counting 15 MB takes ten seconds and over a gigabyte."""

AT_ONCE = Times(began_s=0.0, first_s=0.0, last_s=0.0)
"""Of an answer that was there already."""

Asked: TypeAlias = inference.GenerateRequest | inference.CountTokensRequest | inference.ScoreRequest

_ROLES = {
    inference.ROLE_SYSTEM: "system",
    inference.ROLE_USER: "user",
    inference.ROLE_ASSISTANT: "assistant",
}
_RANKS = {
    inference.PRIORITY_CRITICAL: 0,
    inference.PRIORITY_STANDARD: 1,
    inference.PRIORITY_UNSPECIFIED: 1,
    inference.PRIORITY_BATCH: 2,
}
STANDARD_RANK = _RANKS[inference.PRIORITY_STANDARD]
_FINISH = {
    FinishReason.STOP: inference.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference.FINISH_REASON_LENGTH,
}
_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("temperature", lambda x: 0 <= x <= 2, "in [0, 2]"),  # noqa: PLR2004 - the contract's bounds
    ("top_k", lambda x: x >= 1, "at least 1"),
    ("top_p", lambda x: 0 < x <= 1, "in (0, 1]"),
    ("min_p", lambda x: 0 <= x <= 1, "in [0, 1]"),
    ("repetition_penalty", lambda x: 0 < x <= 2, "in (0, 2]"),  # noqa: PLR2004 - as above
    ("presence_penalty", lambda x: -2 <= x <= 2, "in [-2, 2]"),  # noqa: PLR2004 - as above
    ("frequency_penalty", lambda x: -2 <= x <= 2, "in [-2, 2]"),  # noqa: PLR2004 - as above
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a request wants to be answered; what it asks is read apart."""

    sampling: Sampling
    max_tokens: int
    stops: tuple[str, ...]
    logprobs: bool
    top_logprobs: int
    rank: int
    kind: int
    """As zeta.inference.v1.TaskKind."""
    constraint: Constraint | None


def call(
    request: inference.GenerateRequest, *, vocabulary: int, max_tokens: int, temperature: float,
    seed: int,
) -> Call:  # fmt: skip
    """Read *request*; the other arguments stand in where it says nothing.

    Raises InvalidRequestError that names every wrong field, or NotBuiltError.
    """
    _refuse(
        [
            *_input(request, vocabulary),
            *_settings(request),
            *_constrained(request),
            *_continued(request, vocabulary),
        ]
    )
    if request.HasField("resume"):
        raise NotBuiltError("resume: this server cannot do that yet; leave it empty")
    return Call(
        sampling=_sampling(request.sampling, temperature=temperature, seed=seed),
        max_tokens=request.max_tokens if request.HasField("max_tokens") else max_tokens,
        stops=tuple(request.stop),
        logprobs=request.HasField("logprobs"),
        top_logprobs=request.logprobs.top,
        rank=_RANKS[request.priority],
        kind=request.task_kind,
        constraint=_constraint(request.constraint),
    )


def check_count(request: inference.CountTokensRequest) -> None:
    """Raise InvalidRequestError where *request* cannot be counted."""
    wrong = list(_input(request))
    if (size := request.ByteSize()) > MAX_COUNTED_BYTES:
        text = f"at most {MAX_COUNTED_BYTES} bytes are counted, got {size}"
        wrong.append(Violation(request.WhichOneof("input") or "input", text))
    _refuse(wrong)


def check_score(request: inference.ScoreRequest) -> None:
    """Raise InvalidRequestError where *request* cannot be scored."""
    wrong = list(_input(request))
    count = len(request.continuations)
    if not 1 <= count <= MAX_CONTINUATIONS:
        wrong.append(
            Violation("continuations", f"1 to {MAX_CONTINUATIONS} are needed, got {count}")
        )
    wrong += _empties("continuations", request.continuations)
    _refuse(wrong)


def messages(conversation: inference.Conversation) -> list[Message]:
    """Read a conversation that was checked."""
    return [Message(role=_ROLES[m.role], content=m.content) for m in conversation.messages]


def task_kind(kind: int) -> str:
    """Name a kind of task as a metric's label does."""
    return inference.TaskKind.Name(kind).removeprefix("TASK_KIND_").lower()  # type: ignore[arg-type]


def delta(seq: int, piece: Piece, *, logprobs: bool) -> inference.GenerateResponse:
    """Write a piece of an answer."""
    return inference.GenerateResponse(
        delta=inference.Delta(
            seq=seq,
            text=piece.text,
            token_ids=[t.token for t in piece.tokens],
            logprobs=[_logprob(t) for t in piece.tokens] if logprobs else (),
        )
    )


def finished(
    model: str, answer: Answer, work: Request, times: Times, *, reused_tokens: int = 0
) -> inference.GenerateResponse:
    """Write the end of an answer."""
    assert answer.finish, "an answer that goes on"
    return inference.GenerateResponse(
        finished=inference.Finished(
            reason=_FINISH[answer.finish],
            usage=inference.Usage(
                prompt_tokens=len(work.tokens),
                completion_tokens=answer.completion_tokens,
                # The cache may hold some of an answer begun elsewhere as well.
                cached_prompt_tokens=min(reused_tokens, len(work.tokens)),
            ),
            timings=inference.Timings(
                queue=duration(times.began_s),
                time_to_first_token=duration(times.first_s),
                total=duration(times.last_s),
            ),
            mean_logprob=answer.mean_logprob,
            model=model,
        )
    )


def duration(seconds: float) -> Duration:
    """Write a duration."""
    out = Duration()
    out.FromNanoseconds(round(seconds * 1e9))
    return out


def task_stats(kind: int, stats: TaskStats) -> control.TaskStats:
    """Write the figures of one kind of task."""
    return control.TaskStats(
        kind=kind,  # type: ignore[arg-type]
        requests_total=stats.requests,
        completion_tokens_total=stats.completion_tokens,
        ttft=_sketch(stats.ttft),
        tpot=_sketch(stats.tpot),
    )


def _sketch(sketch: LatencySketch) -> control.LatencySketch:
    pairs = sorted(sketch.counts.items())
    return control.LatencySketch(
        buckets=[i for i, _ in pairs], counts=[n for _, n in pairs], sum=duration(sketch.sum_s)
    )


def _logprob(token: Generated) -> inference.TokenLogprob:
    return inference.TokenLogprob(
        token_id=token.token,
        logprob=token.logprob,
        top=[inference.TopLogprob(token_id=i, logprob=x) for i, x in token.top],
    )


def _sampling(params: inference.SamplingParams, *, temperature: float, seed: int) -> Sampling:
    given = {field.name: value for field, value in params.ListFields()}
    return Sampling(**({"temperature": temperature, "seed": seed} | given))


def _constraint(constraint: inference.OutputConstraint) -> Constraint | None:
    match constraint.WhichOneof("form"):
        case "json_schema":
            return Constraint(form="json_schema", texts=(constraint.json_schema,))
        case "regex":
            return Constraint(form="regex", texts=(constraint.regex,))
        case "choice":
            return Constraint(form="choice", texts=tuple(constraint.choice.options))
        case None:
            return None


def _refuse(wrong: Sequence[Violation]) -> None:
    if wrong:
        text = "; ".join(f"{v.field}: {v.description}" for v in wrong)
        raise InvalidRequestError(text, violations=wrong)


def _input(request: Asked, vocabulary: int = 0) -> Iterator[Violation]:
    match request.WhichOneof("input"):
        case "messages":
            yield from _conversation(request.messages)
        case "prompt":
            if not request.prompt:
                yield Violation("prompt", "must not be empty")
        case "token_ids":
            assert isinstance(request, inference.GenerateRequest)
            yield from _token_ids("token_ids.ids", request.token_ids.ids, vocabulary)
        case _:
            names = ", ".join(f.name for f in request.DESCRIPTOR.oneofs_by_name["input"].fields)
            yield Violation("input", f"one of {names} is needed, got none")


def _conversation(conversation: inference.Conversation) -> Iterator[Violation]:
    if not conversation.messages:
        yield Violation("messages.messages", "at least one message is needed, got none")
    elif not conversation.messages[-1].content:
        last = len(conversation.messages) - 1
        yield Violation(
            f"messages.messages[{last}].content", "must not be empty in the last message"
        )
    for i, message in enumerate(conversation.messages):
        if message.role not in _ROLES:
            yield Violation(
                f"messages.messages[{i}].role",
                f"must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT, got {message.role}",
            )


def _token_ids(field: str, ids: Sequence[int], vocabulary: int) -> Iterator[Violation]:
    if not ids:
        yield Violation(field, "at least one id is needed, got none")
    unknown = [(i, token) for i, token in enumerate(ids) if token >= vocabulary]
    if unknown:
        i, token = unknown[0]
        yield Violation(
            f"{field}[{i}]", f"must be below the vocabulary's size {vocabulary}, got {token}"
        )


def _continued(request: inference.GenerateRequest, vocabulary: int) -> Iterator[Violation]:
    said = request.continuation
    if said.token_ids:
        yield from _token_ids("continuation.token_ids", said.token_ids, vocabulary)
    elif request.HasField("continuation") and not said.text:
        yield Violation("continuation", "text or token_ids is needed, got neither")


def _settings(request: inference.GenerateRequest) -> Iterator[Violation]:
    for name, holds, range_ in _RANGES:
        value = getattr(request.sampling, name)
        if request.sampling.HasField(name) and not holds(value):  # type: ignore[arg-type]
            yield Violation(f"sampling.{name}", f"must be {range_}, got {value:g}")
    if request.HasField("max_tokens") and request.max_tokens < 1:
        yield Violation("max_tokens", f"must be at least 1, got {request.max_tokens}")
    if len(request.stop) > MAX_STOPS:
        yield Violation("stop", f"at most {MAX_STOPS} are allowed, got {len(request.stop)}")
    yield from _empties("stop", request.stop)
    if request.logprobs.top > MAX_TOP_LOGPROBS:
        top = request.logprobs.top
        yield Violation("logprobs.top", f"must be at most {MAX_TOP_LOGPROBS}, got {top}")
    if request.priority not in _RANKS:
        yield Violation("priority", f"must be a Priority, got {request.priority}")
    if request.task_kind not in inference.TaskKind.values():
        yield Violation("task_kind", f"must be a TaskKind, got {request.task_kind}")


def _constrained(request: inference.GenerateRequest) -> Iterator[Violation]:
    constraint, options = request.constraint, len(request.constraint.choice.options)
    if request.HasField("constraint") and constraint.WhichOneof("form") is None:
        yield Violation("constraint", "one of json_schema, regex, choice is needed, got none")
    if constraint.HasField("choice") and not 1 <= options <= MAX_OPTIONS:
        yield Violation("constraint.choice.options", f"1 to {MAX_OPTIONS}, got {options}")
    if (size := constraint.ByteSize()) > MAX_CONSTRAINT_BYTES:
        yield Violation("constraint", f"at most {MAX_CONSTRAINT_BYTES} bytes, got {size}")


def _empties(field: str, texts: Sequence[str]) -> Iterator[Violation]:
    for i, text in enumerate(texts):
        if not text:
            yield Violation(f"{field}[{i}]", "must not be empty")
