"""Policies and beliefs, both ways."""

from typing import Final

from zeta.inference.v1 import decision_pb2 as decision_pb
from zeta.router.v1 import router_service_pb2 as router_pb

from router_svc.core.ahead import Outlook
from router_svc.core.features import TASKS
from router_svc.core.plan import KINDS
from router_svc.core.quality import Belief
from router_svc.core.types import Policy
from router_svc.wire.values import at_least_zero, ratio, task_kind
from services.kit.errors import invalid

_BALANCERS: Final = {
    "predicted_latency": router_pb.BALANCER_PREDICTED_LATENCY,
    "least_request": router_pb.BALANCER_LEAST_REQUEST,
    "round_robin": router_pb.BALANCER_ROUND_ROBIN,
    "p2c": router_pb.BALANCER_P2C,
    "peak_ewma": router_pb.BALANCER_PEAK_EWMA,
    "prequal": router_pb.BALANCER_PREQUAL,
}

_PLANS: Final = {kind: decision_pb.PlanKind.Value(f"PLAN_KIND_{kind.upper()}") for kind in KINDS}


def policy_pb(policy: Policy) -> router_pb.Policy:
    """Write a policy out."""
    return router_pb.Policy(
        name=policy.name,
        latency_weight_per_s=policy.latency_weight_per_s,
        cost_weight_per_usd=policy.cost_weight_per_usd,
        explore_ratio=policy.explore_ratio,
        deadline_confidence=policy.deadline_confidence,
        max_calls=policy.max_calls,
        balancer=_BALANCERS[policy.balancer],
        plans=[_PLANS[kind] for kind in KINDS if kind in policy.plans],
        downgrade_ratio=policy.downgrade_ratio,
        without_forecast=not policy.forecast,
    )


def policy_of(policy: router_pb.Policy) -> Policy:
    """Read a policy. Raises InvalidRequestError naming the field."""
    if not policy.name or len(policy.name) > 64:  # noqa: PLR2004 - a name, not a text
        raise invalid("policy.name", f"must have 1 to 64 characters, got {policy.name[:80]!r}")
    if policy.max_calls < 1:
        raise invalid("policy.max_calls", f"must be at least 1, got {policy.max_calls}")
    balancer = policy.balancer or router_pb.BALANCER_PREDICTED_LATENCY
    names = {wire: name for name, wire in _BALANCERS.items()}
    if balancer not in names:
        raise invalid("policy.balancer", f"unknown value {policy.balancer}")
    kinds = {wire: name for name, wire in _PLANS.items()}
    for i, kind in enumerate(policy.plans):
        if kind not in kinds:
            raise invalid(f"policy.plans[{i}]", f"unknown value {kind}")
    return Policy(
        name=policy.name,
        latency_weight_per_s=at_least_zero(
            policy.latency_weight_per_s, "policy.latency_weight_per_s"
        ),
        cost_weight_per_usd=at_least_zero(policy.cost_weight_per_usd, "policy.cost_weight_per_usd"),
        explore_ratio=ratio(policy.explore_ratio, "policy.explore_ratio", most=0.5),
        deadline_confidence=ratio(policy.deadline_confidence, "policy.deadline_confidence"),
        max_calls=policy.max_calls,
        balancer=names[balancer],
        plans=frozenset(kinds[kind] for kind in policy.plans),
        downgrade_ratio=ratio(policy.downgrade_ratio, "policy.downgrade_ratio"),
        forecast=not policy.without_forecast,
    )


def belief_pb(belief: Belief, ttft_mean_s: float, total_mean_s: float) -> router_pb.Belief:
    """Write a belief out."""
    return router_pb.Belief(
        model=belief.model,
        task_kind=task_kind(TASKS.index(belief.task)),
        quality=belief.mean,
        quality_stddev=belief.stddev,
        outcomes=belief.outcomes,
        ttft_mean_s=ttft_mean_s,
        total_mean_s=total_mean_s,
    )


def outlook_pb(outlook: Outlook) -> router_pb.Outlook:
    """Write out what is foreseen of a model."""
    return router_pb.Outlook(
        model=outlook.model,
        shadow_price=outlook.price,
        forecast_requests_per_s=outlook.requests_per_s,
        forecast_utilization_ratio=outlook.utilisation,
        forecast_error_per_s=outlook.error,
        naive_error_per_s=outlook.naive_error,
    )
