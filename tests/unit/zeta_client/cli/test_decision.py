"""How decisions are shown."""

import pytest

from router_svc import wire
from router_svc.core.plan import BestOf, Cascade, Hedge, Plan, Refine, Single, Vote, line
from zeta_client.cli.decision import plan_text


@pytest.mark.parametrize(
    "plan",
    [
        Single("a"),
        Cascade("a", "b", 0.5),
        Vote(("a", "b", "c")),
        BestOf(("a", "b"), 2, "c"),
        BestOf(("a",), 3, "verifier:python"),
        Refine("a", "b"),
        Hedge("a", "a", 0.1),
    ],
    ids=line,
)
def test_a_plan_reads_as_the_router_writes_it(plan: Plan) -> None:
    """Every kind, with every model that takes part."""
    assert plan_text(wire.plan_pb(plan)) == line(plan)
