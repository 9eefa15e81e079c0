"""What fewer bits cost: the pocket models imported in every precision, on held-out prompts.

    python -m tests.bench.bench_precision [--json] [--prompts N] [--dialect ort|trt]

Top-1 agreement: share of the positions of the right replies at which a precision has the likeliest
token of float32 in the "ort" dialect. Perplexity is of the right replies. Accuracy is of greedy
answers. The "trt" dialect is computed in float32 from weights, norms and angles as they are stored.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.model import importer, text
from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request
from services.model.graph import manifest, runnable
from services.model.graph.decoder import PRECISIONS
from services.model.graph.dialects import DIALECTS, DialectName
from services.model.text import Message
from zeta_client.tasks import Task, generate, is_correct

POCKET = Path(__file__).parents[2] / "services/model/pocket"
MODELS = ("pocket-general", "pocket-coder", "pocket-reasoner")
SLOTS, CHUNK_TOKENS, MOST_TOKENS = 16, 256, 160
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model in one precision."""

    choices: Ids
    """The likeliest token at every position of the replies."""
    loss: float
    """Mean, in nats."""
    accuracy: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="figures for a program")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--dialect", choices=DIALECTS, action="append", help="default: both")
    arguments = parser.parse_args()
    dialects = arguments.dialect or DIALECTS
    rows = [row for name in MODELS for row in compared(name, arguments.prompts, dialects)]
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("".join(f"{value!s:<18}" for value in row.values()))


def compared(
    name: str, prompts: int, dialects: Sequence[DialectName] = DIALECTS
) -> Iterator[dict[str, object]]:
    """Yield the figures of each precision of one pocket model in each dialect."""
    tasks = generate(prompts, split="heldout", seed=7)
    whole: Measured | None = None
    for dialect, precision in itertools.product(dialects, PRECISIONS):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / name
            importer.convert(POCKET / name, folder, precision, dialect=dialect)
            found = measured(folder, tasks, dialect, thinks=name == "pocket-reasoner")
            size_bytes = manifest.read(folder).files[manifest.DATA].size_bytes
        whole = whole or found
        yield {
            "model": name,
            "dialect": dialect,
            "precision": precision,
            "mb": round(size_bytes / 1e6, 1),
            "top1_agreement": round(float((found.choices == whole.choices).mean()), 4),
            "perplexity": round(float(np.exp(found.loss)), 4),
            "accuracy": round(found.accuracy, 4),
        }


def measured(
    folder: Path, tasks: Sequence[Task], dialect: DialectName, *, thinks: bool
) -> Measured:
    """Read the right replies, and write some."""
    stored, words = runnable.load(folder, dialect), text.load(folder)
    prompts = [words.encode(_prompt(words, t), special=False) for t in tasks]
    replies = [words.encode(_reply(t, thinks=thinks), special=False) for t in tasks]
    longest = max(len(p) + max(len(r), MOST_TOKENS) for p, r in zip(prompts, replies, strict=True))
    backend = OrtBackend(
        stored.graph, stored.shape, slots=SLOTS, threads=1, dialect=dialect,
        context_tokens=min(longest, stored.shape.context_tokens),
    )  # fmt: skip
    choices, losses = [], []
    for prompt, reply in zip(prompts, replies, strict=True):
        logits = backend.prefill(0, 0, np.append(prompt, reply)[:-1], len(reply))
        choices.append(logits.argmax(axis=1))
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses.append(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(reply)), reply])
    answers = _answers(backend, stored.stop_ids, prompts)
    right = [is_correct(t, words.decode(a)) for t, a in zip(tasks, answers, strict=True)]
    return Measured(
        choices=np.concatenate(choices),
        loss=float(np.concatenate(losses).mean()),
        accuracy=sum(right) / len(right),
    )


def _prompt(words: text.Text, task: Task) -> str:
    return words.render([Message(role="user", content=task.prompt)])


def _reply(task: Task, *, thinks: bool) -> str:
    thought = f"<think>\n{task.solution}\n</think>\n" if thinks and task.solution else ""
    return f"{thought}{task.answer}"


def _answers(
    backend: OrtBackend, stop_ids: frozenset[int], prompts: Sequence[Ids]
) -> list[list[int]]:
    limits = Limits(
        max_running=SLOTS, kv_tokens=SLOTS * backend.context_tokens, chunk_tokens=CHUNK_TOKENS
    )
    engine, found = Engine(backend, limits), [list[int]() for _ in prompts]
    for i, prompt in enumerate(prompts):
        engine.add(Request(id=i, tokens=prompt, max_tokens=MOST_TOKENS, stop_ids=stop_ids))
    while not engine.idle:
        for out in engine.step().outputs:
            if isinstance(out, Generated):
                found[out.id].append(out.token)
    return found


if __name__ == "__main__":
    main()
