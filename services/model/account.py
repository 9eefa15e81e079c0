"""What became of each request: counters, sketches and Prometheus metrics."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from services.kit.errors import DeadlinePassedError
from services.kit.metrics import REQUEST_DURATION, TIME_TO_FIRST_TOKEN
from services.model.loop import Stream
from services.model.samples import Samples
from services.model.state import State, Times
from services.model.wire import task_kind

_LABELS = ("gen_ai_request_model", "zeta_task_kind")
_TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1)

TPOT = Histogram(
    "gen_ai_server_time_per_output_token_seconds", "Per token after the first.", _LABELS,
    buckets=_TOKEN_SECONDS,
)  # fmt: skip
TOKENS = Counter(
    "gen_ai_server_token_usage", "Tokens of requests answered.", (*_LABELS, "gen_ai_token_type")
)
REQUESTS = Counter("zeta_model_requests", "Requests by outcome.", (*_LABELS, "outcome"))
CACHED = Counter(
    "zeta_model_cached_prompt_tokens", "Prompt tokens that the prefix cache spared.", _LABELS[:1]
)
PREEMPTIONS = Counter(
    "zeta_model_preemptions", "Times that a running request had to wait again.", _LABELS[:1]
)
RUNNING = Gauge("zeta_model_running_requests", "Requests in the batch.", _LABELS[:1])
WAITING = Gauge("zeta_model_waiting_requests", "Requests admitted, not running.", _LABELS[:1])
KV_TOKENS = Gauge("zeta_model_kv_used_tokens", "Cache tokens held.", _LABELS[:1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Books the requests of one model."""

    model: str
    state: State

    @contextmanager
    def request(self, kind: int) -> Iterator[None]:
        """Count the request in this block by how the block ends; an answer counts as `answered`."""
        outcome = "answered"
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit, DeadlinePassedError):
            outcome = "cancelled"
            self.state.totals.requests += 1
            self.state.totals.cancelled += 1
            raise
        except Exception:
            outcome = "failed"
            self.state.totals.requests += 1
            self.state.totals.errors += 1
            raise
        finally:
            REQUESTS.labels(self.model, task_kind(kind), outcome).inc()

    def answered(self, kind: int, samples: Samples) -> None:
        """Count a request with all its answers."""
        times, labels = samples.times(), (self.model, task_kind(kind))
        tokens, longest = samples.completion_tokens, samples.longest_tokens
        self.state.answered(kind, tokens=tokens, times=times, longest_tokens=longest)
        REQUEST_DURATION.labels(*labels, "").observe(times.last_s)
        TIME_TO_FIRST_TOKEN.labels(*labels, "").observe(times.first_s)
        if longest > 1:
            TPOT.labels(*labels).observe((times.last_s - times.first_s) / (longest - 1))
        CACHED.labels(self.model).inc(samples.cached_prompt_tokens)
        TOKENS.labels(*labels, "input").inc(samples.prompt_tokens)
        TOKENS.labels(*labels, "output").inc(tokens)

    def embedded(self, kind: int, streams: Sequence[Stream]) -> None:
        """Count a request whose texts are vectors now."""
        each, labels = [stream.times() for stream in streams], (self.model, task_kind(kind))
        began_s, last_s = min(t.began_s for t in each), max(t.last_s for t in each)
        times = Times(began_s=began_s, first_s=last_s, last_s=last_s)
        self.state.answered(kind, tokens=0, times=times)
        REQUEST_DURATION.labels(*labels, "").observe(last_s)
        CACHED.labels(self.model).inc(sum(stream.reused_tokens for stream in streams))
        TOKENS.labels(*labels, "input").inc(sum(len(s.request.tokens) for s in streams))
