"""Requests built from plain arguments, plain values read from responses, errors read back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from math import exp
from typing import Final, ParamSpec, TypeAlias, TypeVar, cast

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray
from zeta.embedding.v1.embedding_service_pb2 import EmbedRequest, EmbedResponse
from zeta.inference.v1.inference_service_pb2 import (
    Conversation,
    CountTokensRequest,
    GenerateRequest,
    Message,
    Preference,
    Role,
    SamplingParams,
    ScoreRequest,
    ScoreResponse,
)
from zeta.router.v1.router_service_pb2 import Comparison, SubmitFeedbackRequest, Verification

from services.kit.errors import (
    InvalidRequestError,
    StreamBrokenError,
    UnavailableError,
    ZetaError,
    invalid,
)
from services.kit.rpc import is_bare, zeta_error

T = TypeVar("T")
P = ParamSpec("P")

Prompt: TypeAlias = str | Sequence[Mapping[str, str]]
"""A question, or a conversation: {"role": …, "content": …} each, the last one to be answered."""

_JUDGE: Final = "Is the answer above right? Reply with yes or no."
_FAR: Final = 700.0
"""Log-odds beyond which a probability is 0."""
_ROLES: Final = {name.removeprefix("ROLE_").lower(): value for name, value in Role.items() if value}
# What gRPC makes of a reset connection, of a server that closed it, and of a reset stream.
_OF_CONNECTIONS: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
)


def _sayable(build: Callable[P, T]) -> Callable[P, T]:
    """Refuse what no message can hold: texts that are not Unicode, numbers out of range."""

    @wraps(build)
    def built(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return build(*args, **kwargs)
        except UnicodeEncodeError as error:
            text = error.object[max(0, error.start - 20) : error.end + 20]
            raise InvalidRequestError(f"{text!r} is no Unicode text; send UTF-8") from error
        except ValueError as error:
            raise InvalidRequestError(f"{error}; give a smaller number") from error

    return built


@_sayable
def question(
    prompt: Prompt,
    *,
    model: str = "",
    policy: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    explain: bool = False,
    samples: int | None = None,
    session_id: str = "",
    consent_to_train: bool = False,
) -> GenerateRequest:
    """Build the request to answer *prompt*; what is left out is the server's default.

    Raises InvalidRequestError for a conversation that is none, and for what no message can hold.
    """
    return GenerateRequest(
        model=model,
        messages=_conversation(prompt),
        sampling=SamplingParams(temperature=temperature, seed=seed),
        max_tokens=max_tokens,
        preference=Preference(policy=policy, explain=explain),
        samples=samples,
        session_id=session_id,
        consent_to_train=consent_to_train,
    )


@_sayable
def count_request(prompt: Prompt, model: str) -> CountTokensRequest:
    """Build the request to count the tokens of one question."""
    return CountTokensRequest(model=model, messages=_conversation(prompt))


@_sayable
def score_request(prompt: Prompt, continuations: Iterable[str], model: str) -> ScoreRequest:
    """Build the request to score answers to one question."""
    return ScoreRequest(
        model=model, messages=_conversation(prompt), continuations=list(continuations)
    )


def judge_request(prompt: Prompt, answer: str, model: str) -> ScoreRequest:
    """Build the request to have *model* find "yes" or "no" likelier: whether *answer* is right."""
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    shown = [*asked, {"role": "assistant", "content": answer}, {"role": "user", "content": _JUDGE}]
    return score_request(shown, ("yes", "no"), model)


def judged(response: ScoreResponse) -> float:
    """Return the probability of the first of two continuations, if it is one of them."""
    yes, no = (score.logprob for score in response.scores)
    return 1.0 / (1.0 + exp(min(no - yes, _FAR)))


@_sayable
def feedback_request(
    decision_id: str,
    *,
    score: float | None,
    better_than: str,
    preference: float,
    feedback_id: str,
    source: str,
) -> SubmitFeedbackRequest:
    """Build a verdict: a score, or else a comparison with the answer of *better_than*."""
    request = SubmitFeedbackRequest(decision_id=decision_id, feedback_id=feedback_id, source=source)
    if score is not None:
        request.score = score
    if better_than:
        request.comparison.CopyFrom(
            Comparison(other_decision_id=better_than, preference=preference)
        )
    return request


@_sayable
def verification_request(
    decision_id: str, verifier: str, answer: str, reference: str, *, feedback_id: str
) -> SubmitFeedbackRequest:
    """Build the request to have *verifier* hold *answer* against *reference*."""
    asked = Verification(verifier=verifier, answer=answer, reference=reference)
    return SubmitFeedbackRequest(
        decision_id=decision_id, feedback_id=feedback_id, verification=asked
    )


@_sayable
def embed_request(
    texts: Sequence[str], target_model: str, *, encoder: str, prompt_name: str
) -> EmbedRequest:
    """Build the request to embed *texts*, for *target_model* and by *encoder* if they are named."""
    return EmbedRequest(
        texts=texts, target_model=target_model, model=encoder, prompt_name=prompt_name
    )


def vectors(response: EmbedResponse) -> NDArray[np.float32]:
    """Return the embeddings (N, D)."""
    return np.array([e.values for e in response.embeddings], dtype=np.float32)


def error_of(failed: grpc.RpcError, target: str) -> ZetaError:
    """Turn a failed call into the error that the other side raised, or that it is not there."""
    call = _call(failed)
    if is_bare(call) and call.code() is grpc.StatusCode.UNAVAILABLE:
        return UnavailableError(f"nothing answers at {target}")
    return zeta_error(call)


def connection_broke(failed: grpc.RpcError) -> bool:
    """Whether a call ended because its connection did, and not by the other side's will."""
    call = _call(failed)
    return is_bare(call) and call.code() in _OF_CONNECTIONS


def cut_short() -> StreamBrokenError:
    """Build the error of a stream that ended without `Finished`."""
    return StreamBrokenError("the answer ended before it was complete")


def duration(seconds: float) -> Duration | None:
    """Return a duration, None (empty on the wire) for 0."""
    span = Duration()
    span.FromNanoseconds(round(seconds * 1e9))
    return span if seconds else None


def _call(failed: grpc.RpcError) -> grpc.aio.AioRpcError:
    """Name the methods of a failed call: a synchronous one's class has the same, and no name."""
    return cast("grpc.aio.AioRpcError", failed)


def _conversation(prompt: Prompt) -> Conversation:
    """Write a prompt as messages: a question alone is the user's. Raises InvalidRequestError."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return Conversation(messages=[_message(i, turn) for i, turn in enumerate(turns)])


def _message(i: int, turn: Mapping[str, str]) -> Message:
    if not isinstance(turn, Mapping) or turn.keys() != {"role", "content"}:
        raise invalid(f"messages[{i}]", f'must have "role" and "content" alone, got {turn!r:.80}')
    role, content = turn["role"], turn["content"]
    if role not in _ROLES:
        known = ", ".join(_ROLES)
        raise invalid(f"messages[{i}].role", f"must be one of {known}, got {role!r:.80}")
    if not isinstance(content, str):
        raise invalid(f"messages[{i}].content", f"must be a text, got {content!r:.80}")
    return Message(role=_ROLES[role], content=content)
