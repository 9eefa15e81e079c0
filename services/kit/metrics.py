"""Prometheus metrics under OpenTelemetry's names, one port per process.

OpenTelemetry's dots become underscores, and the unit is appended, as its Prometheus
compatibility specification says: `gen_ai.server.request.duration` in seconds is
`gen_ai_server_request_duration_seconds`.
"""

from functools import cache
from typing import TypeVar

from prometheus_client import Counter, Histogram, start_http_server

from services.kit.errors import ConfigError

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

RPC_DURATION = Histogram(
    "rpc_server_duration_seconds",
    "Time from a call's arrival to its end.",
    ("rpc_service", "rpc_method", "rpc_grpc_status"),
    buckets=SECONDS,
)

# Of models and of the router, which is one to its callers. A model leaves the plan empty, the
# router the kind of task.
_REQUEST = ("gen_ai_request_model", "zeta_task_kind", "zeta_plan")
REQUEST_DURATION = Histogram(
    "gen_ai_server_request_duration_seconds",
    "From a request's arrival to its last token.",
    _REQUEST,
    buckets=SECONDS,
)
TIME_TO_FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From a request's arrival to its first token.",
    _REQUEST,
    buckets=SECONDS,
)


_Metric = TypeVar("_Metric", Counter, Histogram)


@cache
def of(metric: _Metric, *values: str) -> _Metric:
    """Return the child of *metric* with those label values, for what every call counts.

    The library makes strings of them, and looks each child up under a lock.
    """
    return metric.labels(*values)


def serve(address: str) -> None:
    """Serve this process's metrics on HOST:PORT in the background; empty means not at all.

    Raises ConfigError where the port is taken.
    """
    if not address:
        return
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host)
    except OSError as error:
        raise ConfigError(f"metrics = {address!r}: {error.strerror}; choose a free port") from error
