"""Requests in, validated here, once; and on to one model."""

import json
import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Literal

from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc.core.affinity import PREFIX_CHARACTERS
from router_svc.core.features import Features
from router_svc.core.twist import AS_ASKED, Twist
from router_svc.core.types import Ask, Priority
from router_svc.verifiers import WITHOUT_REFERENCE
from router_svc.wire.values import (
    Continuation,
    Request,
    at_least_zero,
    ratio,
    task_index,
    task_kind,
)
from services.kit.errors import invalid

_STOP_STRINGS: Final = 16


_TOP_LOGPROBS: Final = 20
_SAMPLES: Final = 16
_SESSION_CHARACTERS: Final = 200
_ROLES: Final = {
    value: name.removeprefix("ROLE_").lower() for name, value in inference_pb.Role.items()
}
_DRAWN_TEMPERATURE: Final = 0.7
"""Of answers beyond the first, where the caller names none: different, and still sensible."""
_REVIEW: Final = (
    "Check the answer above step by step. If it is right, repeat it; if not, correct it. "
    "Reply with the final answer only, in the form that was asked for."
)


def ask_of(request: Request, deadline_s: float | None, caller: str = "") -> Ask:
    """Read what a decision needs from *request*, which its *caller* calls so, if anything.

    Raises InvalidRequestError naming the field.
    """
    _check_limits(request)
    text, characters = _text_of(request)
    wish = request.preference
    return Ask(
        text=text,
        characters=characters,
        max_tokens=_max_tokens(request),
        model=request.model,
        allowed_models=frozenset(wish.allowed_models),
        priority=_priority(request.priority),
        tenant=request.tenant,
        caller=caller,
        deadline_s=deadline_s,
        policy=wish.policy,
        latency_weight_per_s=_weight(wish, "latency_weight_per_s"),
        cost_weight_per_usd=_weight(wish, "cost_weight_per_usd"),
        min_quality=ratio(wish.min_quality, "preference.min_quality"),
        task_hint=task_index(request.task_kind),
        session=_session(request),
        prefix=_prefix(request) if characters > PREFIX_CHARACTERS else "",
        explain=wish.explain,
        samples=request.samples or 1,
        reviewable=request.WhichOneof("input") != "token_ids",
        may_draw=request.sampling.temperature > 0.0 or not request.sampling.HasField("temperature"),
        logprobs=request.HasField("logprobs"),
        verifier=_verifier(wish.verifier),
        kept_prompt=_kept(request) if request.consent_to_train else "",
    )


def upstream_request(
    request: Request,
    model: str,
    features: Features,
    behind: Continuation | None = None,
    twist: Twist = AS_ASKED,
) -> Request:
    """Copy *request* for one model: named, with its kind of task, without routing wishes.

    *behind* is what was shown of the answer already, the caller's own beginning left out.
    """
    copy = inference_pb.GenerateRequest()
    copy.CopyFrom(request)
    copy.model = model
    copy.ClearField("preference")
    copy.ClearField("consent_to_train")
    copy.task_kind = task_kind(int(features.tasks.argmax()))
    if twist.sample:
        _draw(copy, twist.sample)
    if twist.draft:
        _review(copy, twist.draft)
    if twist.logprobs and not request.HasField("logprobs"):
        copy.logprobs.SetInParent()
    if behind is not None:
        begun = request.HasField("continuation")
        copy.continuation.text += behind.text
        # What the caller began with has no tokens that go with those of the rest.
        copy.continuation.token_ids[:] = () if begun else behind.token_ids
    return copy


def score_request(
    request: Request, model: str, answers: Sequence[str]
) -> inference_pb.ScoreRequest:
    """Ask *model* how likely it finds *answers* to the input of *request*."""
    asked = inference_pb.ScoreRequest(model=model, continuations=answers)
    if request.WhichOneof("input") == "messages":
        asked.messages.CopyFrom(request.messages)
    else:
        asked.prompt = request.prompt
    return asked


def _draw(request: Request, sample: int) -> None:
    """Ask for another answer than the likeliest, a different one for each *sample*."""
    if not request.sampling.temperature:
        request.sampling.temperature = _DRAWN_TEMPERATURE
    if request.sampling.HasField("seed"):
        request.sampling.seed = (request.sampling.seed + sample) % 2**64


def _review(request: Request, draft: str) -> None:
    """Have *draft* reviewed: as a turn of the conversation, or below a plain prompt."""
    if request.WhichOneof("input") == "prompt":
        request.prompt = f"{request.prompt}\n\nDraft: {draft}\n\n{_REVIEW}\n\nFinal answer:"
        return
    request.messages.messages.extend(
        [
            inference_pb.Message(role=inference_pb.ROLE_ASSISTANT, content=draft),
            inference_pb.Message(role=inference_pb.ROLE_USER, content=_REVIEW),
        ]
    )


def _check_limits(request: Request) -> None:
    """Check what would otherwise fail on every model, one after the other."""
    if len(request.stop) > _STOP_STRINGS:
        raise invalid("stop", f"at most {_STOP_STRINGS} strings, got {len(request.stop)}")
    if "" in request.stop:
        raise invalid("stop", "none may be empty")
    if request.logprobs.top > _TOP_LOGPROBS:
        raise invalid(
            "logprobs.top", f"must be at most {_TOP_LOGPROBS}, got {request.logprobs.top}"
        )
    if request.HasField("samples") and not 1 <= request.samples <= _SAMPLES:
        raise invalid("samples", f"must be 1 to {_SAMPLES}, got {request.samples}")
    if request.HasField("continuation") and request.samples > 1:
        raise invalid("samples", f"must be 1 with a continuation, got {request.samples}")
    if request.HasField("constraint") and request.constraint.WhichOneof("form") is None:
        raise invalid("constraint", "one of json_schema, regex, choice is needed")
    given = {field.name: value for field, value in request.sampling.ListFields()}
    for name, rule, holds in _SAMPLING:
        if name in given and not holds(given[name]):
            raise invalid(f"sampling.{name}", f"{rule}, got {given[name]}")


def _text_of(request: Request) -> tuple[str, int]:
    """Return the text to be answered and the number of characters of the whole input."""
    match request.WhichOneof("input"):
        case "prompt":
            if not request.prompt:
                raise invalid("prompt", "must not be empty")
            return request.prompt, len(request.prompt)
        case "messages":
            return _last_message(request.messages.messages)
        case "token_ids":
            if not request.token_ids.ids:
                raise invalid("token_ids.ids", "at least one is needed")
            if not request.model:
                raise invalid("model", "token ids belong to one vocabulary: name the model")
            # About four characters a token, which is all that can be said without the text.
            return " ", 4 * len(request.token_ids.ids)
    raise invalid("input", "one of messages, prompt, token_ids is required")


def _last_message(messages: Sequence[inference_pb.Message]) -> tuple[str, int]:
    if not messages:
        raise invalid("messages.messages", "at least one message is needed")
    for i, message in enumerate(messages):
        if message.role not in inference_pb.Role.values()[1:]:
            raise invalid(f"messages.messages[{i}].role", f"not a role: {message.role}")
    if not messages[-1].content:
        raise invalid(f"messages.messages[{len(messages) - 1}].content", "must not be empty")
    return messages[-1].content, sum(len(m.content) for m in messages)


def _session(request: Request) -> str:
    if len(request.session_id) > _SESSION_CHARACTERS:
        raise invalid("session_id", f"must have at most {_SESSION_CHARACTERS} characters")
    return request.session_id


def _prefix(request: Request) -> str:
    """Name the beginning of a long request: the same for those that begin alike."""
    match request.WhichOneof("input"):
        case "messages":
            left, parts = PREFIX_CHARACTERS, []
            for message in request.messages.messages:
                parts.append(f"{message.role}:{message.content[:left]}")
                if (left := left - len(message.content)) <= 0:
                    break
            begins = "\0".join(parts)
        case "prompt":
            begins = request.prompt[:PREFIX_CHARACTERS]
        case _:
            return ""
    return blake2b(begins.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _kept(request: Request) -> str:
    """Write the input as JSON: a string, or a list of messages as chat templates take them."""
    match request.WhichOneof("input"):
        case "prompt":
            return json.dumps(request.prompt, ensure_ascii=False)
        case "messages":
            said = [
                {"role": _ROLES[m.role], "content": m.content} for m in request.messages.messages
            ]
            return json.dumps(said, ensure_ascii=False)
    raise invalid("consent_to_train", "token ids are no text to train on; leave it empty")


def _verifier(name: str) -> str:
    if name and name not in WITHOUT_REFERENCE:
        known = ", ".join(WITHOUT_REFERENCE)
        raise invalid("preference.verifier", f"must be one of {known}, got {name[:80]!r}")
    return name


def _max_tokens(request: Request) -> int | None:
    if not request.HasField("max_tokens"):
        return None
    if request.max_tokens < 1:
        raise invalid("max_tokens", f"must be at least 1, got {request.max_tokens}")
    return request.max_tokens


def _priority(value: int) -> Priority:
    if value == inference_pb.PRIORITY_UNSPECIFIED:
        return Priority.STANDARD
    if value not in inference_pb.Priority.values():
        raise invalid("priority", f"unknown value {value}")
    return Priority(value)


def _weight(
    wish: inference_pb.Preference, field: Literal["latency_weight_per_s", "cost_weight_per_usd"]
) -> float | None:
    if not wish.HasField(field):
        return None
    return at_least_zero(getattr(wish, field), f"preference.{field}")


def _within(low: float, high: float) -> Callable[[float], bool]:
    return lambda value: low <= value <= high


_SAMPLING: Final[Sequence[tuple[str, str, Callable[[float], bool]]]] = (
    ("temperature", "must be in [0, 2]", _within(0, 2)),
    ("top_k", "must be at least 1", _within(1, math.inf)),
    ("top_p", "must be in (0, 1]", _within(1e-9, 1)),
    ("min_p", "must be in [0, 1]", _within(0, 1)),
    ("repetition_penalty", "must be in (0, 2]", _within(1e-9, 2)),
    ("presence_penalty", "must be in [-2, 2]", _within(-2, 2)),
    ("frequency_penalty", "must be in [-2, 2]", _within(-2, 2)),
)
