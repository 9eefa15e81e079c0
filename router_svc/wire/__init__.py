"""Protobuf ⇄ values."""

from router_svc.wire.answers import continuation, finished, handover, started
from router_svc.wire.decisions import decision_pb_of, models_in, plan_pb
from router_svc.wire.embeddings import adapt
from router_svc.wire.policies import belief_pb, outlook_pb, policy_of, policy_pb
from router_svc.wire.profiles import features_of
from router_svc.wire.requests import ask_of, score_request, upstream_request
from router_svc.wire.tickets import (
    Outcome,
    check_timings,
    no_resume,
    outcome_of,
    ticket_pb,
    times_of,
)
from router_svc.wire.values import (
    Continuation,
    DecisionMessage,
    EmbedRequest,
    EmbedResponse,
    Event,
    Finished,
    Request,
    ratio,
)

__all__ = [
    "Continuation",
    "DecisionMessage",
    "EmbedRequest",
    "EmbedResponse",
    "Event",
    "Finished",
    "Outcome",
    "Request",
    "adapt",
    "ask_of",
    "belief_pb",
    "check_timings",
    "continuation",
    "decision_pb_of",
    "features_of",
    "finished",
    "handover",
    "models_in",
    "no_resume",
    "outcome_of",
    "outlook_pb",
    "plan_pb",
    "policy_of",
    "policy_pb",
    "ratio",
    "score_request",
    "started",
    "ticket_pb",
    "times_of",
    "upstream_request",
]
