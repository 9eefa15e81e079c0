"""Train the profile heads of the embedding service and write how well they do.

    python -m tools.train_profile --seed 7

Prompts: the pocket fleet's tasks (`zeta_client.tasks`, split "train"), and those of
`tools.profile_prompts`. Held out: other pocket problems (split "heldout"), and stems that
training never saw. Two heads are written: one on all-MiniLM-L6-v2 and lexical features, one on
lexical features alone, for other encoders. Runs in about two minutes on two cores.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.embedding import heads
from services.embedding.core.lexical import lexical
from services.embedding.core.profile import TASKS, Head, dump, sigmoid, softmax
from services.embedding.encoder import OnnxEncoder, load
from services.kit.config import Embedding
from tools.profile_prompts import Split, prompts, stems
from zeta_client.tasks import generate

Floats = NDArray[np.float64]

OUT = Path("services/embedding")
CACHE = Path("~/.cache/zeta").expanduser()
STEPS, RATE = 600, 0.05
PENALTY = 5e-3
"""Weight decay on standardised features; between the two best of five on a fifth of the
training stems."""
KIND_SHARES = np.array([1.0, 1.0, 1.0, 0.3])
"""Of TASKS in training; a bare text to embed seldom comes where an answer is asked for."""
CHARACTERS_PER_TOKEN = 3.0
"""Of the pocket fleet's answers, roughly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Prompts with what a profile should say about them; N of them."""

    texts: list[str]
    kinds: NDArray[np.intp]
    difficulties: Floats
    log_tokens: Floats
    sources: list[str]
    """`pocket` or `written`."""

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which have an answer, and so a difficulty and a length, (N,)."""
        return np.asarray(self.kinds != TASKS.index("embedding"))


def main() -> None:
    """Train, evaluate, write weights and results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pocket", type=int, default=3000, help="pocket tasks to train on")
    parser.add_argument("--per-stem", type=int, default=12, help="prompts of every stem")
    args = parser.parse_args()
    encoder = load(Embedding(), CACHE)
    train = examples("train", args.pocket, args.per_stem, args.seed)
    held = examples("heldout", args.pocket // 3, args.per_stem, args.seed + 1)
    sections = []
    vectors, held_vectors = embed(encoder, train.texts), embed(encoder, held.texts)
    for name, width in ((heads.FULL, vectors.shape[1]), (heads.LEXICAL, 0)):
        head = fit(features(train.texts, vectors[:, :width]), train)
        (OUT / "data" / f"{name}.npz").write_bytes(dump(head))
        out = scores(head, features(held.texts, held_vectors[:, :width]))
        sections.append(report(name, out, held))
        print(sections[-1])
    (OUT / "RESULTS.md").write_text(results(args, train, held, sections), encoding="utf-8")


def examples(split: Split, pocket: int, per_stem: int, seed: int) -> Examples:
    """Draw the prompts of *split*."""
    tasks = generate(pocket, split=split, seed=seed)
    rows = [
        (t.prompt, str(t.kind), t.difficulty, len(t.answer) / CHARACTERS_PER_TOKEN + 1, "pocket")
        for t in tasks
    ]
    rows += [
        (text, stem.kind, stem.difficulty_ratio, stem.output_tokens, "written")
        for stem, text in prompts(split, per_stem=per_stem, seed=seed)
    ]
    texts, kinds, difficulties, tokens, sources = zip(*rows, strict=True)
    return Examples(
        texts=list(texts),
        kinds=np.array([TASKS.index(kind) for kind in kinds]),
        difficulties=np.array(difficulties, np.float64),
        log_tokens=np.log1p(np.array(tokens, np.float64)),
        sources=list(sources),
    )


def embed(encoder: OnnxEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Encode each text alone, as the service would, (N, D)."""
    return np.concatenate([encoder.run([encoder.prepare(text).ids]) for text in texts])


def features(texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return embeddings and lexical features side by side, (N, F)."""
    return np.concatenate([vectors, np.stack([lexical(text) for text in texts])], axis=1)


def fit(inputs: NDArray[np.float32], examples: Examples) -> Head:
    """Fit all three parts together with Adam on the whole set; convex, so no seed matters."""
    mean, scale = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
    x = ((inputs - mean) / scale).astype(np.float64)
    wanted = np.eye(len(TASKS))[examples.kinds]
    weights, bias = np.zeros((x.shape[1], 6)), np.zeros(6)
    bias[5] = examples.log_tokens.mean()
    share, answered = balance(examples.kinds), examples.answered[:, None]
    first, second = np.zeros((x.shape[1] + 1, 6)), np.zeros((x.shape[1] + 1, 6))
    for step in range(1, STEPS + 1):
        out = x @ weights + bias
        error = np.concatenate(
            [
                softmax(out[:, :4]) - wanted,
                (sigmoid(out[:, 4:5]) - examples.difficulties[:, None]) * answered,
                (out[:, 5:] - examples.log_tokens[:, None]) * answered,
            ],
            axis=1,
        )
        error *= share
        slope = np.concatenate([x.T @ error + PENALTY * weights, error.sum(axis=0)[None]])
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        rate = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        change = rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights, bias = weights - change[:-1], bias - change[-1]
    return Head(
        mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        weights=weights.astype(np.float32),
        bias=bias.astype(np.float32),
    )


def balance(kinds: NDArray[np.intp]) -> Floats:
    """Weigh examples so that the kinds have KIND_SHARES and all together weigh 1, (N, 1)."""
    counts = np.bincount(kinds, minlength=len(TASKS))
    return np.asarray((KIND_SHARES / KIND_SHARES.sum() / counts)[kinds, None])


def scores(head: Head, inputs: NDArray[np.float32]) -> Floats:
    """Return the head's outputs, (N, 6)."""
    return np.asarray(((inputs - head.mean) / head.scale) @ head.weights + head.bias, np.float64)


def report(name: str, out: Floats, held: Examples) -> str:
    """Describe the held-out results as Markdown."""
    shares, found = softmax(out[:, :4]), out[:, :4].argmax(axis=1)
    right = found == held.kinds
    sources = np.array(held.sources)
    log_loss = -np.log(shares[np.arange(len(found)), held.kinds]).mean()
    lines = [f"## {name}", "", "| asked \\ found | " + " | ".join(TASKS) + " | recall |"]
    lines.append("|---" * (len(TASKS) + 2) + "|")
    for i, task in enumerate(TASKS):
        row = [int(((held.kinds == i) & (found == j)).sum()) for j in range(len(TASKS))]
        recall = row[i] / max(sum(row), 1)
        lines.append(f"| {task} | " + " | ".join(map(str, row)) + f" | {recall:.3f} |")
    lines += [
        "",
        "| held-out | prompts | accuracy | difficulty MAE | difficulty r | length off by |",
    ]
    lines.append("|---" * 6 + "|")
    for label, chosen in (
        ("all", sources != ""),
        ("pocket tasks", sources == "pocket"),
        ("written prompts", sources == "written"),
    ):
        asked = chosen & held.answered
        hard, wanted = sigmoid(out[asked, 4]), held.difficulties[asked]
        factor = np.exp(np.median(np.abs(out[asked, 5] - held.log_tokens[asked])))
        lines.append(
            f"| {label} | {chosen.sum()} | {right[chosen].mean():.3f} | "
            f"{np.abs(hard - wanted).mean():.3f} | {np.corrcoef(hard, wanted)[0, 1]:.3f} | "
            f"{factor:.2f}x |"
        )
    calibration = f"calibration error {ece(shares, right):.3f}"
    lines += ["", f"Log loss of the kind: {log_loss:.3f} nats; {calibration}."]
    return "\n".join(lines) + "\n"


def ece(shares: Floats, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Return the expected calibration error (Naeini et al., 2015) of the likeliest kind."""
    sure = shares.max(axis=1)
    which = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [
        (which == b).mean() * abs(right[which == b].mean() - sure[which == b].mean())
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))


def results(
    args: argparse.Namespace, train: Examples, held: Examples, sections: Sequence[str]
) -> str:
    """Return the whole of RESULTS.md."""
    counts = {split: sum(stem.split == split for stem in stems()) for split in ("train", "heldout")}
    shares = ", ".join(f"{t} {s:g}" for t, s in zip(TASKS, KIND_SHARES, strict=True))
    options = f"--seed {args.seed} --pocket {args.pocket} --per-stem {args.per_stem}"
    intro = f"""# The profile heads, held out

`python -m tools.train_profile {options}`

Trained on {len(train.texts)} prompts: {args.pocket} pocket tasks, and {args.per_stem} prompts of
each of {counts["train"]} written stems. Checked on {len(held.texts)}: pocket problems and the
prompts of {counts["heldout"]} stems that training never saw. The kinds weigh {shares} in training.

Difficulties and lengths of written prompts are their authors' estimates, those of pocket tasks are
the tasks' own; texts to embed have neither. "Length off by" is the median factor between expected
and actual tokens of the answer.
"""
    return "\n".join([intro, *sections])


if __name__ == "__main__":
    main()
