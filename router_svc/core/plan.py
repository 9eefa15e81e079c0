"""What to run: a plan is a value, and `router_svc.dispatch` is its only interpreter.

A further kind is a class here, a pricer in `price`, its building in `price.Block.plan`, a case in
`dispatch` and one in `wire.plan_pb`.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias


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


@dataclass(frozen=True, slots=True)
class Hedge:
    """Ask *primary*; where it is silent for *after_s*, ask *backup* too: who begins, answers."""

    primary: str
    backup: str
    """May be the same model, on another replica."""
    after_s: float


@dataclass(frozen=True, slots=True)
class BestOf:
    """Draw *n* answers from *models* in turn; the one that *scorer* likes best wins."""

    models: tuple[str, ...]
    n: int
    scorer: str
    """A model, or "verifier:" and the name of a verifier."""


@dataclass(frozen=True, slots=True)
class Refine:
    """Have *draft* answer; *review* sees that and gives the final answer."""

    draft: str
    review: str


Plan: TypeAlias = Single | Cascade | Vote | BestOf | Refine | Hedge
VERIFIER: Final = "verifier:"
"""What a scorer's name begins with where it is no model."""
KINDS: Final = ("single", "cascade", "vote", "best_of", "refine", "hedge")
"""Every kind's name, in the contract's order."""


def models_of(plan: Plan) -> tuple[str, ...]:
    """Every model that the plan may ask, in order."""
    match plan:
        case Single(model):
            return (model,)
        case Cascade(first, then):
            return (first, then)
        case Vote(models):
            return models
        case BestOf(models, _, scorer):
            return models if scorer.startswith(VERIFIER) else (*models, scorer)
        case Refine(draft, review):
            return (draft, review)
        case Hedge(primary, backup):
            return (primary, backup)


def begun_by(plan: Plan) -> tuple[str, ...]:
    """Every model that the plan asks at once."""
    match plan:
        case Vote(models):
            return models
        case BestOf(models, n):
            return tuple(models[i % len(models)] for i in range(n))
    return models_of(plan)[:1]


def kind_of(plan: Plan) -> str:
    """The plan's kind, as metrics and journal name it."""
    return _KIND_OF[type(plan)]


def line(plan: Plan) -> str:
    """The plan in one line, such as "cascade(general-4b, coder-7b)"."""
    return f"{kind_of(plan)}({', '.join(models_of(plan))})"


_KIND_OF: Final[dict[type[Plan], str]] = {
    Single: "single",
    Cascade: "cascade",
    Vote: "vote",
    BestOf: "best_of",
    Refine: "refine",
    Hedge: "hedge",
}
