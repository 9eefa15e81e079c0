"""A decision as plain values, and the same decision again from them, bit for bit.

`kept` is everything that `decide` read: what the caller allowed, every candidate's figures, the
policy, what ensembles proved to be worth, and the one random number. `again` decides anew from it,
under the same policy or another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from router_svc.core.decide import VERSION, Decision, decide
from router_svc.core.types import Ask, Candidates, Policy, Priority

_ASKED: Final = ("deadline_s", "min_quality")
"""What `decide` reads of a request, beside its priority."""
_NAMES: Final = ("models", "replicas")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A random number that was drawn before."""

    draw: float

    def random(self) -> float:
        """Return it."""
        return self.draw


def kept(decision: Decision, ask: Ask) -> dict[str, Any]:
    """Return what *decision* was made of, as numbers, strings, lists and mappings."""
    c = decision.candidates
    figures = {
        f.name: np.broadcast_to(getattr(c, f.name), (len(c.models),)).tolist()
        for f in fields(Candidates)
        if f.name not in _NAMES
    }
    return {
        "version": VERSION,
        "ask": {**{name: getattr(ask, name) for name in _ASKED}, "priority": int(ask.priority)},
        "models": list(c.models),
        "replicas": list(c.replicas),
        "figures": figures,
        "policy": {f.name: getattr(decision.policy, f.name) for f in fields(Policy)},
        "gains": dict(decision.gains),
        "draw": decision.draw,
        "plan": repr(decision.plan),
    }


def again(state: Mapping[str, Any], policy: Policy | None = None) -> Decision:
    """Decide anew from what `kept` returned, under its own policy or *policy*.

    Raises ValueError where another version of `decide` made it, KeyError or TypeError where it is
    damaged, and what `decide` raises.
    """
    if state["version"] != VERSION:
        raise ValueError(f"decided by version {state['version']}, and this is {VERSION}")
    asked = {**state["ask"], "priority": Priority(state["ask"]["priority"])}
    figures = {
        # JSON has no infinity: the age of a report that never came.
        name: np.array([np.inf if x is None else x for x in column], dtype=np.float64)
        for name, column in state["figures"].items()
    }
    return decide(
        Ask(text="", characters=0, **asked),
        Candidates(models=tuple(state["models"]), replicas=tuple(state["replicas"]), **figures),
        policy or Policy(**state["policy"]),
        Drawn(state["draw"]),
        gains=state["gains"],
    )
