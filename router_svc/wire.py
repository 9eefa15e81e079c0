"""Protobuf ⇄ values. Requests are validated here, once, at the edge."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb
from zeta.inference.v1 import decision_pb2 as decision_pb
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.router.v1 import router_service_pb2 as router_pb

from router_svc.core.decide import Decision, PricedPlan
from router_svc.core.features import TASKS, Features, Floats, lexical
from router_svc.core.plan import Cascade, Plan, Single, Vote
from router_svc.core.quality import Belief
from router_svc.core.reward import Step
from router_svc.core.types import Ask, Policy, Priority
from services.kit.errors import NotBuiltError, invalid

Event: TypeAlias = inference_pb.GenerateResponse
Request: TypeAlias = inference_pb.GenerateRequest
DecisionMessage: TypeAlias = decision_pb.Decision

_STOP_STRINGS: Final = 16
_TOP_LOGPROBS: Final = 20
_BALANCERS: Final = {
    "predicted_latency": router_pb.BALANCER_PREDICTED_LATENCY,
    "least_request": router_pb.BALANCER_LEAST_REQUEST,
    "round_robin": router_pb.BALANCER_ROUND_ROBIN,
}
_SOURCES: Final = {
    "service": decision_pb.PROFILE_SOURCE_SERVICE,
    "cache": decision_pb.PROFILE_SOURCE_CACHE,
    "lexical": decision_pb.PROFILE_SOURCE_LEXICAL,
}


def ask_of(request: Request, deadline_s: float | None) -> Ask:
    """Read what a decision needs from *request*.

    Raises InvalidRequestError naming the field, NotBuiltError for what no server does yet.
    """
    _refuse_unbuilt(request)
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
        deadline_s=deadline_s,
        policy=wish.policy,
        latency_weight_per_s=_weight(wish, "latency_weight_per_s"),
        cost_weight_per_usd=_weight(wish, "cost_weight_per_usd"),
        min_quality=ratio(wish.min_quality, "preference.min_quality"),
        task_hint=_task(request.task_kind),
        explain=wish.explain,
    )


def upstream_request(request: Request, model: str, features: Features) -> Request:
    """Copy *request* for one model: named, with its kind of task, without routing wishes."""
    copy = inference_pb.GenerateRequest()
    copy.CopyFrom(request)
    copy.model = model
    copy.ClearField("preference")
    copy.task_kind = task_kind(int(features.tasks.argmax()))
    return copy


def task_kind(index: int) -> inference_pb.TaskKind.ValueType:
    """Wire value of a task's index in `features.TASKS`."""
    return inference_pb.TaskKind.values()[index + 1]


def features_of(profile: embedding_pb.Profile, encoder: str, text: str) -> Features:
    """Read a profile of *text*. Raises ValueError where it is not one."""
    tasks = np.zeros(len(TASKS))
    for share in profile.tasks:
        if (index := _task(share.kind)) is not None:
            tasks[index] = share.probability
    if not 0.0 < tasks.sum() < math.inf:
        raise ValueError(f"task shares {tasks.tolist()} are no probabilities")
    return Features(
        embedding=np.array(profile.embedding.values, dtype=np.float64),
        tasks=tasks / tasks.sum(),
        difficulty=min(max(profile.difficulty, 0.0), 1.0),
        expected_output_tokens=max(profile.expected_output_tokens, 1.0),
        prompt_tokens=max(int(profile.prompt_tokens), 1),
        lexical=lexical(text),
        source=encoder,
    )


def with_hint(features: Features, ask: Ask) -> Features:
    """Mix the caller's task hint in as a prior: three times as likely as without it."""
    if ask.task_hint is None:
        return features
    odds: Floats = features.tasks * np.where(np.arange(len(TASKS)) == ask.task_hint, 3.0, 1.0)
    return replace(features, tasks=odds / odds.sum())


def started(decision_id: str, line: str, model: str, replica: str, prompt_tokens: int) -> Event:
    """Build the first event."""
    return inference_pb.GenerateResponse(
        started=inference_pb.Started(
            decision_id=decision_id,
            plan=line,
            model=model,
            replica=replica,
            prompt_tokens=prompt_tokens,
        )
    )


def finished(
    last: inference_pb.Finished,
    steps: Sequence[Step],
    *,
    queue_s: float,
    ttft_s: float,
    total_s: float,
    decision: decision_pb.Decision | None,
) -> Event:
    """Build the last event from the chosen model's own.

    `usage` is the chosen call's; `cost_usd` and `steps` cover every call.
    """
    chosen = next(step for step in steps if step.chosen)
    event = inference_pb.GenerateResponse()
    done = event.finished
    done.CopyFrom(last)
    done.model = chosen.model
    done.cost_usd = sum(step.cost_usd for step in steps)
    model_queue_s = last.timings.queue.ToNanoseconds() / 1e9
    done.timings.queue.CopyFrom(duration(queue_s + model_queue_s))
    done.timings.time_to_first_token.CopyFrom(duration(ttft_s))
    done.timings.total.CopyFrom(duration(total_s))
    del done.steps[:]
    done.steps.extend(_step_pb(step) for step in steps)
    if decision is not None:
        done.decision.CopyFrom(decision)
    return event


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
                quality=float(c.quality[i]),
                quality_stddev=float(c.quality_stddev[i]),
                ttft_p50=duration(c.ttft_p50_s[i]),
                ttft_p90=duration(c.ttft_p90_s[i]),
                total_p50=duration(c.total_p50_s[i]),
                total_p90=duration(c.total_p90_s[i]),
                cost_usd=float(c.cost_usd[i]),
                output_tokens=float(c.output_tokens[i]),
                report_age=duration(c.report_age_s[i]) if np.isfinite(c.report_age_s[i]) else None,
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


def models_in(plan: decision_pb.PlanSpec) -> tuple[str, ...]:
    """Every model that a plan may ask."""
    single, cascade = plan.single.model, (plan.cascade.first, plan.cascade.then)
    return tuple(name for name in (single, *cascade, *plan.vote.models) if name)


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
    return Policy(
        name=policy.name,
        latency_weight_per_s=_at_least_zero(
            policy.latency_weight_per_s, "policy.latency_weight_per_s"
        ),
        cost_weight_per_usd=_at_least_zero(
            policy.cost_weight_per_usd, "policy.cost_weight_per_usd"
        ),
        explore_ratio=ratio(policy.explore_ratio, "policy.explore_ratio", most=0.5),
        deadline_confidence=ratio(policy.deadline_confidence, "policy.deadline_confidence"),
        max_calls=policy.max_calls,
        balancer=names[balancer],
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


def duration(seconds: float) -> Duration:
    """Write seconds out; what no Duration can hold becomes a year."""
    nanos = int(min(max(float(seconds), 0.0), 31_536_000.0) * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def timestamp(at_s: float) -> Timestamp:
    """Write seconds since 1970 out."""
    return Timestamp(seconds=int(at_s), nanos=int(at_s % 1 * 1e9))


def ratio(value: float, field: str, most: float = 1.0) -> float:
    """Return *value* if it is in [0, most]. Raises InvalidRequestError."""
    if not 0.0 <= value <= most:
        raise invalid(field, f"must be in [0, {most:g}], got {value}")
    return value


def _at_least_zero(value: float, field: str) -> float:
    if not 0.0 <= value < math.inf:
        raise invalid(field, f"must be a number of at least 0, got {value}")
    return value


def _refuse_unbuilt(request: Request) -> None:
    if request.HasField("constraint"):
        raise NotBuiltError("constraint: constrained output is not built yet")
    if request.HasField("resume"):
        raise NotBuiltError("resume: going on with an earlier stream is not built yet")


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


def _task(value: int) -> int | None:
    if value == inference_pb.TASK_KIND_UNSPECIFIED:
        return None
    if value not in inference_pb.TaskKind.values():
        raise invalid("task_kind", f"unknown value {value}")
    return value - 1


def _weight(
    wish: inference_pb.Preference, field: Literal["latency_weight_per_s", "cost_weight_per_usd"]
) -> float | None:
    if not wish.HasField(field):
        return None
    return _at_least_zero(getattr(wish, field), f"preference.{field}")


def _step_pb(step: Step) -> inference_pb.PlanStep:
    return inference_pb.PlanStep(
        model=step.model,
        replica=step.replica,
        usage=inference_pb.Usage(
            prompt_tokens=step.prompt_tokens, completion_tokens=step.completion_tokens
        ),
        cost_usd=step.cost_usd,
        total=duration(step.total_s),
        mean_logprob=step.mean_logprob,
        chosen=step.chosen,
    )


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
