"""What the journal keeps of decisions and outcomes, as work for its thread."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from router_svc.core import redo
from router_svc.core.decide import Decision
from router_svc.core.features import TASKS, Features
from router_svc.core.plan import kind_of, line
from router_svc.core.reward import Step
from router_svc.core.types import Ask
from router_svc.journal import Work
from router_svc.learner import Remembered
from router_svc.profiler import Profiled
from router_svc.run import Run


def decision(
    decision_id: str, at_s: float, *, made: Decision, ask: Ask, profiled: Profiled
) -> Callable[[sqlite3.Connection], Any]:
    """Return the work of writing a decision down; encoding happens on the journal's thread."""

    def write(db: sqlite3.Connection) -> None:
        features = profiled.features
        c = made.candidates
        figures = {
            model: {
                "replica": c.replicas[i],
                "quality": c.quality[i],
                "quality_stddev": c.quality_stddev[i],
                "total_p50_s": c.total_p50_s[i],
                "total_p90_s": c.total_p90_s[i],
                "cost_usd": c.cost_usd[i],
            }
            for i, model in enumerate(c.models)
        }
        kept = {
            "tasks": dict(zip(TASKS, features.tasks.tolist(), strict=True)),
            "difficulty": features.difficulty,
            "expected_output_tokens": features.expected_output_tokens,
            "prompt_tokens": features.prompt_tokens,
            "lexical": features.lexical.tolist(),
            "source": features.source,
        }
        db.execute(
            "INSERT INTO decisions (id, time_s, tenant, policy, plan, kind, propensity, explored, "
            "expected_quality, source, features, embedding, candidates, made_of, pieces) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                decision_id,
                at_s,
                ask.tenant,
                made.policy.name,
                line(made.plan),
                kind_of(made.plan),
                made.propensity,
                made.explored,
                made.quality,
                profiled.source,
                _json(kept),
                features.embedding.astype(np.float32).tobytes(),
                _json(figures),
                _json(redo.kept(made, ask)),
                features.pieces.tobytes(),
            ),
        )

    return write


def forgetting(before_s: float, most: int) -> Callable[[sqlite3.Connection], int]:
    """Return the work of deleting the decisions made before *before_s*, *most* of them at most.

    Their outcomes, feedback and texts go with them. The result is the number of decisions deleted.
    """
    old = "SELECT id FROM decisions WHERE time_s < ? ORDER BY time_s, id LIMIT ?"

    def forget(db: sqlite3.Connection) -> int:
        for table, key in (("feedback", "decision_id"), ("outcomes", "id"), ("texts", "id")):
            db.execute(f"DELETE FROM {table} WHERE {key} IN ({old})", (before_s, most))  # noqa: S608 - our own names
        return db.execute(f"DELETE FROM decisions WHERE id IN ({old})", (before_s, most)).rowcount  # noqa: S608 - our own names

    return forget


def forgetting_texts(decision_id: str) -> Callable[[sqlite3.Connection], int]:
    """Return the work of deleting what was asked and answered; the result is how many rows."""
    return lambda db: db.execute("DELETE FROM texts WHERE id = ?", (decision_id,)).rowcount


REMEMBERED: Final = (
    "features, embedding, pieces, kind, expected_quality, tenant, decisions.time_s, steps"
)
"""The columns that `remembered` reads."""


def remembered(row: Sequence[Any]) -> Remembered:
    """Read a decision back from its row."""
    features, embedding, pieces, kind, expected_quality, tenant, decided_s, steps = row
    kept = msgspec.json.decode(features)
    return Remembered(
        features=Features(
            embedding=np.frombuffer(embedding, dtype=np.float32).astype(np.float64),
            tasks=np.array([kept["tasks"][name] for name in TASKS]),
            difficulty=kept["difficulty"],
            expected_output_tokens=kept["expected_output_tokens"],
            prompt_tokens=kept["prompt_tokens"],
            lexical=np.array(kept["lexical"]),
            pieces=np.frombuffer(pieces, dtype=np.uint16),
            source=kept["source"],
        ),
        kind=kind,
        expected_quality=expected_quality,
        tenant=tenant,
        decided_s=decided_s,
        steps=msgspec.json.decode(steps or "[]", type=tuple[Step, ...]),
    )


def outcome(run: Run, *, at_s: float, status: str, total_s: float) -> Work:
    """Write down how a run ended."""
    row, steps = (run.id, at_s, status, run.ttft_s, total_s), run.steps
    return lambda db: db.execute(
        "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)", (*row, _json(steps))
    )


def texts(decision_id: str, prompt: str, answer: str) -> Work:
    """Write down what was asked and answered; to be done with the caller's consent only."""
    return lambda db: db.execute(
        "INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (decision_id, prompt, answer)
    )


def _json(value: object) -> str:
    """Encode in a small part of the time that `json` takes: the event loop waits meanwhile."""
    return msgspec.json.encode(value).decode()
