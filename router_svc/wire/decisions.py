"""Decisions out, whole."""

import math
from typing import Final

from zeta.inference.v1 import decision_pb2 as decision_pb

from router_svc.core.decide import Decision, PricedPlan
from router_svc.core.features import Features
from router_svc.core.plan import VERIFIER, BestOf, Cascade, Hedge, Plan, Refine, Single, Vote
from router_svc.wire.values import (
    duration,
    timestamp,
)

_SOURCES: Final = {
    "service": decision_pb.PROFILE_SOURCE_SERVICE,
    "cache": decision_pb.PROFILE_SOURCE_CACHE,
    "lexical": decision_pb.PROFILE_SOURCE_LEXICAL,
}


def decision_pb_of(
    decision: Decision,
    *,
    decision_id: str,
    at_s: float,
    took_s: float,
    features: Features,
    source: str,
) -> decision_pb.Decision:
    """Write a decision out, whole."""
    code, reasoning, general, embedding = features.tasks.tolist()
    c = decision.candidates
    return decision_pb.Decision(
        id=decision_id,
        time=timestamp(at_s),
        policy=decision.policy.name,
        plan=plan_pb(decision.plan),
        propensity=decision.propensity,
        explored=decision.explored,
        profile=decision_pb.ProfileSummary(
            code=code,
            reasoning=reasoning,
            general=general,
            embedding=embedding,
            difficulty=features.difficulty,
            prompt_tokens=features.prompt_tokens,
            expected_output_tokens=features.expected_output_tokens,
            source=_SOURCES[source],
        ),
        candidates=[
            decision_pb.Candidate(
                model=model,
                replica=c.replicas[i],
                quality=c.quality[i],
                quality_stddev=c.quality_stddev[i],
                ttft_p50=duration(c.ttft_p50_s[i]),
                ttft_p90=duration(c.ttft_p90_s[i]),
                total_p50=duration(c.total_p50_s[i]),
                total_p90=duration(c.total_p90_s[i]),
                cost_usd=c.cost_usd[i],
                output_tokens=c.output_tokens[i],
                report_age=duration(age) if math.isfinite(age := c.report_age_s[i]) else None,
            )
            for i, model in enumerate(c.models)
        ],
        plans=[_priced_pb(priced) for priced in decision.plans()],
        rejections=[
            decision_pb.Rejection(
                model=r.model,
                replica=r.replica,
                reason=decision_pb.RejectionReason.values()[r.reason],
                detail=r.detail,
            )
            for r in decision.rejections
        ],
        decision_time=duration(took_s),
    )


def plan_pb(plan: Plan) -> decision_pb.PlanSpec:
    """Write a plan out."""
    match plan:
        case Single(model):
            return decision_pb.PlanSpec(single=decision_pb.SinglePlan(model=model))
        case Cascade(first, then, accept_from):
            return decision_pb.PlanSpec(
                cascade=decision_pb.CascadePlan(first=first, then=then, accept_from=accept_from)
            )
        case Vote(models):
            return decision_pb.PlanSpec(vote=decision_pb.VotePlan(models=models))
        case BestOf(models, n, scorer):
            return decision_pb.PlanSpec(
                best_of=decision_pb.BestOfPlan(models=models, n=n, scorer=scorer)
            )
        case Refine(draft, review):
            return decision_pb.PlanSpec(refine=decision_pb.RefinePlan(draft=draft, review=review))
        case Hedge(primary, backup, after_s):
            return decision_pb.PlanSpec(
                hedge=decision_pb.HedgePlan(primary=primary, backup=backup, after=duration(after_s))
            )


def models_in(plan: decision_pb.PlanSpec) -> tuple[str, ...]:
    """Every model that a plan may ask."""
    named = (
        plan.single.model,
        *(plan.cascade.first, plan.cascade.then),
        *plan.vote.models,
        *(*plan.best_of.models, plan.best_of.scorer),
        *(plan.refine.draft, plan.refine.review),
        *(plan.hedge.primary, plan.hedge.backup),
    )
    return tuple(name for name in named if name and not name.startswith(VERIFIER))


def _priced_pb(priced: PricedPlan) -> decision_pb.PricedPlan:
    return decision_pb.PricedPlan(
        plan=plan_pb(priced.plan),
        utility=priced.utility if math.isfinite(priced.utility) else 0.0,
        quality=priced.quality,
        latency_term=priced.latency_term,
        cost_term=priced.cost_term,
        capacity_term=priced.capacity_term,
        deadline_probability=priced.deadline_probability,
        propensity=priced.propensity,
    )
