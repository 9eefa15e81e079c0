"""A decision as plain values, and the same decision again from them, bit for bit.

`kept` is everything that `decide` read: what the caller allowed, every candidate's figures, the
policy, what ensembles proved to be worth, and the one random number. `again` decides anew from it,
under the same policy or another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Final

from router_svc.core.decide import VERSION, Decision, decide
from router_svc.core.types import Ask, Candidates, Policy, Priority

_ASKED: Final = ("deadline_s", "min_quality")
"""What `decide` reads of a request, beside its priority."""
_NAMES: Final = {kind: tuple(f.name for f in fields(kind)) for kind in (Candidates, Policy)}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A random number that was drawn before."""

    draw: float

    def random(self) -> float:
        """Return it."""
        return self.draw


def kept(decision: Decision, ask: Ask) -> dict[str, Any]:
    """Return what *decision* was made of, as numbers, strings, lists and mappings."""
    return {
        "version": VERSION,
        "ask": {**{name: getattr(ask, name) for name in _ASKED}, "priority": int(ask.priority)},
        "candidates": _plain(decision.candidates),
        "policy": _plain(decision.policy),
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
    return decide(
        Ask(text="", characters=0, **asked),
        Candidates(**{name: _figures(value) for name, value in state["candidates"].items()}),
        policy or Policy(**{name: _word(value) for name, value in state["policy"].items()}),
        Drawn(state["draw"]),
        gains=state["gains"],
    )


def _plain(value: Candidates | Policy) -> dict[str, Any]:
    """Take a value apart: sets become sorted lists."""
    found = {}
    for name in _NAMES[type(value)]:
        part = getattr(value, name)
        found[name] = sorted(part) if isinstance(part, frozenset) else part
    return found


def _figures(value: Any) -> Any:
    """Put names, or numbers in lists of any depth, together again."""
    if not isinstance(value, (list, tuple)):
        # JSON has no infinity: the age of a report that never came.
        return inf if value is None else value
    if value and all(isinstance(each, str) for each in value):
        return tuple(value)
    return [_figures(each) for each in value]


def _word(value: Any) -> Any:
    return frozenset(value) if isinstance(value, list) else value
