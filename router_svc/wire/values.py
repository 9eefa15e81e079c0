"""Small values, both ways."""

import math
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb
from zeta.inference.v1 import decision_pb2 as decision_pb
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from services.kit.errors import invalid

Event: TypeAlias = inference_pb.GenerateResponse

Finished: TypeAlias = inference_pb.Finished

Request: TypeAlias = inference_pb.GenerateRequest


EmbedRequest: TypeAlias = embedding_pb.EmbedRequest


EmbedResponse: TypeAlias = embedding_pb.EmbedResponse

Continuation: TypeAlias = inference_pb.Continuation


DecisionMessage: TypeAlias = decision_pb.Decision


def task_kind(index: int) -> inference_pb.TaskKind.ValueType:
    """Wire value of a task's index in `features.TASKS`."""
    return inference_pb.TaskKind.values()[index + 1]


def task_index(value: int) -> int | None:
    """Index in `features.TASKS`, None for unspecified. Raises InvalidRequestError."""
    if value == inference_pb.TASK_KIND_UNSPECIFIED:
        return None
    if value not in inference_pb.TaskKind.values():
        raise invalid("task_kind", f"unknown value {value}")
    return value - 1


def duration(seconds: float) -> Duration:
    """Write seconds out; what no Duration can hold becomes a year."""
    nanos = int(min(max(float(seconds), 0.0), 31_536_000.0) * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def seconds(span: Duration) -> float:
    """Read a duration."""
    return span.ToNanoseconds() / 1e9


def timestamp(at_s: float) -> Timestamp:
    """Write seconds since 1970 out."""
    return Timestamp(seconds=int(at_s), nanos=int(at_s % 1 * 1e9))


def ratio(value: float, field: str, most: float = 1.0) -> float:
    """Return *value* if it is in [0, most]. Raises InvalidRequestError."""
    if not 0.0 <= value <= most:
        raise invalid(field, f"must be in [0, {most:g}], got {value}")
    return value


def at_least_zero(value: float, field: str) -> float:
    """Return *value* if it is a number of at least 0. Raises InvalidRequestError."""
    if not 0.0 <= value < math.inf:
        raise invalid(field, f"must be a number of at least 0, got {value}")
    return value
