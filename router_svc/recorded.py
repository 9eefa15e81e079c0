"""Read a journal as it lies there: every decision, made again or judged by another policy.

The file is opened for reading only; a router may be writing it meanwhile.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from router_svc.core import redo
from router_svc.core.decide import Decision
from router_svc.core.offpolicy import Logged
from router_svc.core.plan import Single, line
from router_svc.core.types import Policy
from router_svc.journal import MIGRATIONS
from services.kit.errors import ConfigError

_SCHEMA: Final = 3
"""From here on decisions say what they were made of."""
_ROWS: Final = """
    SELECT id, made_of, propensity, explored, expected_quality, (
        SELECT AVG(s) FROM (
            SELECT score AS s FROM feedback WHERE decision_id = decisions.id
            UNION ALL
            SELECT 1.0 - score FROM feedback WHERE other_decision_id = decisions.id
        )
    ) FROM decisions ORDER BY time_s, id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One decision as it was journaled."""

    id: str
    made_of: dict[str, Any] | None
    """What `redo.kept` kept; None in decisions from before that was journaled."""
    propensity: float
    explored: bool
    quality: float
    score: float | None
    """Mean of the feedback on it, in [0, 1]; None where there is none."""


Target = Callable[[Decision, dict[str, Any]], dict[str, tuple[float, float]]]
"""(decision made again, what it was made of) to plan to (probability, predicted quality).

Plans are named as `plan.line` names them: cascades of the same models count as the same, although
their thresholds follow the policy's prices.
"""


def decisions(path: Path) -> Iterator[Recorded]:
    """Yield the decisions of a journal, oldest first. Raises ConfigError where it is none."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not _SCHEMA <= version <= len(MIGRATIONS):
                raise ConfigError(
                    f"{path}: a journal of schema {version}, and {_SCHEMA} to {len(MIGRATIONS)} "
                    "can be replayed; a router that starts with an older one brings it up to date"
                )
            for name, made_of, propensity, explored, quality, score in db.execute(_ROWS):
                yield Recorded(
                    id=name,
                    made_of=msgspec.json.decode(made_of) if made_of else None,
                    propensity=propensity,
                    explored=bool(explored),
                    quality=quality,
                    score=score,
                )
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: not a journal of a router, or damaged ({error})") from error


def difference(recorded: Recorded) -> str:
    """Make a decision again; say in what it differs, bit for bit: "" in nothing."""
    if recorded.made_of is None:
        return "made before decisions were journaled whole"
    try:
        made = redo.again(recorded.made_of)
    except (ValueError, KeyError, TypeError, LookupError) as error:
        return str(error) or type(error).__name__
    pairs = {
        "plan": (recorded.made_of["plan"], repr(made.plan)),
        "propensity": (recorded.propensity, made.propensity),
        "explored": (recorded.explored, made.explored),
        "expected quality": (recorded.quality, made.quality),
    }
    return "; ".join(f"{name} {was}, now {now}" for name, (was, now) in pairs.items() if was != now)


def under(policy: Policy) -> Target:
    """Return what *policy* would choose, exploration included."""
    return lambda _made, state: _chances(redo.again(state, policy))


def always(model: str) -> Target:
    """Return the policy that asks one model, whatever it is."""

    def chosen(made: Decision, _state: dict[str, Any]) -> dict[str, tuple[float, float]]:
        c = made.candidates
        if model not in c.models:
            return {}
        return {line(Single(model)): (1.0, c.quality[c.models.index(model)])}

    return chosen


def logged(found: Iterator[Recorded], target: Target) -> Logged:
    """Judge the scored decisions by *target*; those that cannot be made again are left out."""
    rows = []
    for each in found:
        if each.score is None or difference(each):
            continue
        assert each.made_of is not None
        made = redo.again(each.made_of)
        try:
            other = target(made, each.made_of)
        except LookupError:
            # Under this policy the request would have been refused.
            continue
        if not other:
            continue
        could = _chances(made)
        rows.append(
            (
                each.score,
                other.get(line(made.plan), (0.0, 0.0))[0] / made.propensity,
                made.quality,
                sum(p * q for p, q in other.values()),
                sum(p for plan, (p, _) in other.items() if plan in could),
            )
        )
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    names = ("score", "weight", "expected", "other_expected", "support")
    return Logged(**dict(zip(names, columns, strict=True)))


def _chances(made: Decision) -> dict[str, tuple[float, float]]:
    """Return every plan that may be chosen, with its probability and predicted quality."""
    found = {}
    for k, chance in enumerate(made.probabilities):
        if chance > 0.0:
            found[line(made.menu.plan(k))] = (chance, made.menu.quality[k])
    return found
