"""How a routing decision looks: to a person as tables, to a program as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from rich.table import Table
from rich.text import Text
from zeta.inference.v1.decision_pb2 import (
    Candidate,
    Decision,
    PlanSpec,
    PricedPlan,
    ProfileSource,
    ProfileSummary,
    Rejection,
    RejectionReason,
)

from zeta_client.cli import shell


def as_json(decision: Decision) -> dict[str, Any]:
    """Return the decision as a JSON object, with the proto's field names and every field."""
    return MessageToDict(
        decision, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def show(decision: Decision) -> None:
    """Print the decision to stdout: what was known, what it chose between, what it refused."""
    console = shell.out()
    why = "to learn" if decision.explored else "by utility"
    console.print(
        Text(plan_text(decision.plan), "bold"),
        f"{why}, policy {decision.policy}, "
        f"propensity {decision.propensity:.3f}, decided in "
        f"{decision.decision_time.ToNanoseconds() / 1e6:.2f} ms, decision {decision.id}",
    )
    console.print(profile_text(decision.profile))
    for table in (_candidates(decision.candidates), _plans(decision), _refused(decision)):
        if table.row_count:
            console.print(table)


def plan_text(plan: PlanSpec) -> str:
    """Return a plan on one line, as `Started.plan` has it: "cascade(a, b)"."""
    kind = plan.WhichOneof("kind")
    names: Iterable[str] = ()
    match kind:
        case "single":
            names = (plan.single.model,)
        case "cascade":
            names = (plan.cascade.first, plan.cascade.then)
        case "vote":
            names = plan.vote.models
        case "best_of":
            judge = plan.best_of.scorer
            names = (*plan.best_of.models, *([] if judge.startswith("verifier:") else [judge]))
        case "refine":
            names = (plan.refine.draft, plan.refine.review)
        case "hedge":
            names = (plan.hedge.primary, plan.hedge.backup)
    return f"{kind}({', '.join(names)})" if kind else "no plan"


def profile_text(profile: ProfileSummary) -> str:
    """Return what the router believed about a request, on one line."""
    kinds: Mapping[str, float] = {
        name: getattr(profile, name) for name in ("code", "reasoning", "general", "embedding")
    }
    mix = ", ".join(f"{name} {share:.0%}" for name, share in kinds.items() if round(share, 2))
    source = ProfileSource.Name(profile.source).removeprefix("PROFILE_SOURCE_").lower()
    return (
        f"profile: {mix}; difficulty {profile.difficulty:.2f}; {profile.prompt_tokens} prompt "
        f"tokens; about {profile.expected_output_tokens:.0f} to come (from {source})"
    )


def _candidates(candidates: Iterable[Candidate]) -> Table:
    table = _table("candidates", "model", "replica")
    for title in ("quality", "ttft p50", "p90", "total p50", "p90", "tokens", "cost $", "age"):
        table.add_column(title, justify="right")
    for c in candidates:
        spans = (c.ttft_p50, c.ttft_p90, c.total_p50, c.total_p90)
        table.add_row(
            c.model,
            c.replica,
            f"{c.quality:.2f} ± {c.quality_stddev:.2f}",
            *(f"{span.ToNanoseconds() / 1e6:.0f} ms" for span in spans),
            f"{c.output_tokens:.0f}",
            f"{c.cost_usd:.2g}",
            f"{c.report_age.ToNanoseconds() / 1e6:.0f} ms" if c.HasField("report_age") else "-",
        )
    return table


def _plans(decision: Decision) -> Table:
    table = _table("plans, best first", "plan")
    for title in ("utility", "quality", "- latency", "- cost", "- capacity", "in time", "chance"):
        table.add_column(title, justify="right")
    for p in decision.plans:
        chosen = "bold" if p.plan == decision.plan else None
        table.add_row(plan_text(p.plan), *_terms(p), style=chosen)
    return table


def _terms(p: PricedPlan) -> Iterable[str]:
    terms = (p.utility, p.quality, p.latency_term, p.cost_term, p.capacity_term)
    return (
        *(f"{term:.4f}" for term in terms),
        f"{p.deadline_probability:.0%}",
        f"{p.propensity:.3f}",
    )


def _refused(decision: Decision) -> Table:
    table = _table("refused", "model", "replica", "reason", "detail")
    for r in decision.rejections:
        table.add_row(r.model, r.replica, _reason(r), r.detail)
    return table


def _reason(rejection: Rejection) -> str:
    name = RejectionReason.Name(rejection.reason).removeprefix("REJECTION_REASON_")
    return name.lower().replace("_", " ")


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="dim")
