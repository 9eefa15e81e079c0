"""What to run: a plan is a value, and `router_svc.dispatch` is its only interpreter.

A further kind (best-of, refine, hedge) is a class here, a pricer in `price`, and a case there.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Single:
    """Ask one model and stream its answer."""

    model: str


@dataclass(frozen=True, slots=True)
class Cascade:
    """Ask *first*; where it is not sure enough, ask *then* and stream that."""

    first: str
    then: str
    accept_from: float
    """The first answer stands from this estimated probability of being right, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Vote:
    """Ask every model; the answer with the most weight wins."""

    models: tuple[str, ...]


Plan: TypeAlias = Single | Cascade | Vote


def models_of(plan: Plan) -> tuple[str, ...]:
    """Every model that the plan may ask, in order."""
    match plan:
        case Single(model):
            return (model,)
        case Cascade(first, then):
            return (first, then)
        case Vote(models):
            return models


def kind_of(plan: Plan) -> str:
    """The plan's kind, as metrics and journal name it."""
    return type(plan).__name__.lower()


def line(plan: Plan) -> str:
    """The plan in one line, such as "cascade(general-4b, coder-7b)"."""
    return f"{kind_of(plan)}({', '.join(models_of(plan))})"
