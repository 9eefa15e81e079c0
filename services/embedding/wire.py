"""Requests checked, answers encoded: protobuf on one side, plain values on the other."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from zeta.embedding.v1.embedding_service_pb2 import Embedding, EmbedRequest, Profile, TaskShare
from zeta.inference.v1.inference_service_pb2 import TaskKind

from services.embedding.core import profile as core
from services.embedding.encoded import Encoded
from services.kit.errors import InvalidRequestError, UnknownModelError, Violation, invalid

MAX_TEXTS: Final = 256
MAX_TEXT_BYTES: Final = 1024 * 1024
_VIOLATIONS_SHOWN: Final = 16

_KINDS: Final = {
    "code": TaskKind.TASK_KIND_CODE,
    "reasoning": TaskKind.TASK_KIND_REASONING,
    "general": TaskKind.TASK_KIND_GENERAL,
    "embedding": TaskKind.TASK_KIND_EMBEDDING,
}


def checked(texts: Sequence[str]) -> list[str]:
    """Return *texts* as a list. Raises InvalidRequestError for too many, empty or long ones."""
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise invalid("texts", f"1 to {MAX_TEXTS} texts are taken, not {len(texts)}")
    wrong = [
        Violation(f"texts[{i}]", description)
        for i, text in enumerate(texts)
        if (description := _mistake(text))
    ]
    if wrong:
        message = f"{wrong[0].field}: {wrong[0].description}"
        raise InvalidRequestError(message, violations=wrong[:_VIOLATIONS_SHOWN])
    return list(texts)


def check_encoder(request: EmbedRequest, here: str) -> None:
    """Raise UnknownModelError for another encoder than *here*, InvalidRequestError for a prompt."""
    if request.model not in ("", here):
        raise UnknownModelError(
            f"no encoder {request.model[:80]!r} here; this process answers for {here!r}",
            violations=[Violation("model", f"must be empty or {here!r}")],
        )
    if request.prompt_name:
        raise invalid("prompt_name", f"{here!r} has no prompts, got {request.prompt_name[:80]!r}")


def embedding(encoded: Encoded, values: NDArray[np.float32]) -> Embedding:
    """Encode *values* (D,), made from *encoded*."""
    return Embedding(values=values.tolist(), tokens=encoded.tokens, truncated=encoded.truncated)


def profile(value: core.Profile, encoded: Encoded, *, with_embedding: bool) -> Profile:
    """Encode one profile, with its embedding if asked for."""
    return Profile(
        tasks=[
            TaskShare(kind=_KINDS[kind], probability=share)
            for kind, share in zip(core.TASKS, value.tasks, strict=True)
        ],
        difficulty=value.difficulty_ratio,
        expected_output_tokens=value.output_tokens,
        prompt_tokens=encoded.tokens,
        language=value.language,
        embedding=embedding(encoded, encoded.vector) if with_embedding else None,
    )


def _mistake(text: str) -> str:
    """Say what is wrong with *text*; empty where nothing is."""
    if not text:
        return "must not be empty"
    if len(text) * 4 > MAX_TEXT_BYTES and (size := len(text.encode())) > MAX_TEXT_BYTES:
        return f"has {size} bytes of UTF-8; at most {MAX_TEXT_BYTES} are taken"
    return ""
