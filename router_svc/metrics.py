"""What the router exports to Prometheus, under OpenTelemetry's names where there is one."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from router_svc.core.ahead import Outlook
from router_svc.core.quality import Belief
from services.kit.metrics import of

DECISIONS = Counter("zeta_router_decisions_total", "Decisions made.", ("plan", "model", "explored"))
DECISION_SECONDS = Histogram(
    "zeta_router_decision_seconds",
    "Time of the decision alone.",
    buckets=(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01),
)
PREDICTION_RATIO = Histogram(
    "zeta_router_actual_over_predicted_ratio",
    "Time that a model call took to its first token or its end, over the predicted median.",
    ("gen_ai_request_model", "quantity"),
    buckets=(0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0),
)
WITHIN_P90 = Counter(
    "zeta_router_predictions_total",
    "Predicted times of model calls, by whether what came was within the 90 % quantile.",
    ("gen_ai_request_model", "quantity", "within_p90"),
)
PROFILES = Counter("zeta_router_profiles_total", "Profiles, by where they came from.", ("source",))
RETRIES = Counter(
    "zeta_router_retries_total", "Calls repeated elsewhere before the first token.", ("replica",)
)
HANDOVERS = Counter(
    "zeta_router_handovers_total", "Answers that went on elsewhere in the middle.", ("replica",)
)
FAILURES = Counter("zeta_router_failures_total", "Model calls that failed.", ("replica", "reason"))
BREAKER_OPEN = Gauge("zeta_router_breaker_open", "1 while a replica is not asked.", ("replica",))
LEFT_OUT = Counter(
    "zeta_router_outlier_ejections_total",
    "Times a replica was left out because it did much worse than its peers.",
    ("replica",),
)
HEALTHY = Gauge("zeta_router_replica_healthy", "1 while a replica can be asked.", ("replica",))
QUEUED = Gauge("zeta_router_queued_requests", "Requests that wait for admission.")
REFUSED = Counter("zeta_router_refused_total", "Requests refused for want of room.", ("priority",))
TICKETS = Counter("zeta_router_tickets_total", "Tickets, by how their calls ended.", ("outcome",))
FEEDBACK = Counter("zeta_router_feedback_total", "Feedback that counted.", ("source",))
TRUST = Histogram(
    "zeta_router_feedback_weight_ratio",
    "What feedback counted for: 1 where its source agrees with the others.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0),
)
JOURNAL_LOST = Counter("zeta_router_journal_lost_total", "Journal entries that were not written.")
JOURNAL_BROKEN = Gauge("zeta_router_journal_broken", "1 while the journal cannot be written.")
_MODEL = ("gen_ai_request_model",)
SHADOW_PRICE = Gauge(
    "zeta_router_shadow_price_ratio", "Quality that a call of the usual size must be worth.", _MODEL
)
FORECAST = Gauge(
    "zeta_router_forecast_requests_per_second",
    "Requests expected over the next seconds that this model is best for.",
    _MODEL,
)
FORECAST_UTILISATION = Gauge(
    "zeta_router_forecast_utilization_ratio",
    "Share of a model's slots that what is expected would take, at these prices.",
    _MODEL,
)
FORECAST_ERROR = Gauge(
    "zeta_router_forecast_error_requests_per_second",
    "Mean absolute error of the forecast; naive: of taking the last second for the future.",
    (*_MODEL, "method"),
)
ALLOCATED = Gauge(
    "zeta_router_allocated_slots", "Requests that a replica may run at once.", ("device", "replica")
)
ALLOCATIONS = Counter(
    "zeta_router_allocation_changes_total", "Times that a device was divided anew.", ("device",)
)

_BELIEF = ("gen_ai_request_model", "zeta_task_kind")
QUALITY = Gauge(
    "zeta_router_quality_ratio", "Expected score of a model's answers, as learned.", _BELIEF
)
OUTCOMES = Gauge(
    "zeta_router_quality_outcomes",
    "Outcomes behind it, weighted by how well they are remembered.",
    _BELIEF,
)


def show_beliefs(beliefs: Iterable[Belief]) -> None:
    """Export what was learned of every model on each kind of task."""
    for each in beliefs:
        QUALITY.labels(each.model, each.task).set(each.mean)
        OUTCOMES.labels(each.model, each.task).set(each.outcomes)


def predicted(model: str, quantity: str, actual_s: float, p50_s: float, p90_s: float) -> None:
    """Note what a predicted *quantity*, "ttft" or "total", turned out to be."""
    of(PREDICTION_RATIO, model, quantity).observe(actual_s / max(p50_s, 1e-9))
    of(WITHIN_P90, model, quantity, str(actual_s <= p90_s).lower()).inc()


def show_outlooks(outlooks: Iterable[Outlook]) -> None:
    """Export what is foreseen of every model."""
    for each in outlooks:
        SHADOW_PRICE.labels(each.model).set(each.price)
        FORECAST.labels(each.model).set(each.requests_per_s)
        FORECAST_UTILISATION.labels(each.model).set(each.utilisation)
        FORECAST_ERROR.labels(each.model, "damped").set(each.error)
        FORECAST_ERROR.labels(each.model, "naive").set(each.naive_error)
