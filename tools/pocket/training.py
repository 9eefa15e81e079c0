"""The training loop: one model from its recipe, resumable, the same for the same seed."""

import time
from collections.abc import Iterator
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from tools.pocket.checkpoint import publish, save_state
from tools.pocket.network import Decoder
from tools.pocket.recipes import Recipe
from tools.pocket.text import IGNORED, Batch, batches

WARMUP_STEPS: Final = 100
DECAY_SHARE: Final = 0.4
FINAL_LR_RATIO: Final = 0.02
WEIGHT_DECAY: Final = 0.05
MAX_GRADIENT_NORM: Final = 1.0
SAVE_EVERY_S: Final = 60.0
REPORT_EVERY_STEPS: Final = 50


def train(
    name: str, recipe: Recipe, tokenizer: Tokenizer, *, seed: int, out: Path, state: Path
) -> None:
    """Train `name`, going on from `state` if there is one, and publish it under `out`."""
    torch.manual_seed(seed)
    model = Decoder(recipe.shape)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.peak_lr,
        betas=(0.9, 0.98),
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    first = _restore(state, model, optimiser)
    stream = batches(recipe, tokenizer, seed=seed, first=first * recipe.n_buckets)
    saved_at_s = time.monotonic()
    for step, loss in _steps(name, recipe, (model, optimiser), stream, first):
        if time.monotonic() - saved_at_s > SAVE_EVERY_S:
            _save(state, model, optimiser, step + 1)
            saved_at_s = time.monotonic()
        if step % REPORT_EVERY_STEPS == 0:
            print(f"{name} step {step} loss {loss:.3f}", flush=True)
    _save(state, model, optimiser, recipe.n_steps)
    publish(model, recipe.shape, tokenizer, out / name)


def _steps(
    name: str,
    recipe: Recipe,
    learner: tuple[Decoder, torch.optim.Optimizer],
    stream: Iterator[Batch],
    first: int,
) -> Iterator[tuple[int, float]]:
    model, optimiser = learner
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task(name, total=recipe.n_steps, completed=first)
        for step in range(first, recipe.n_steps):
            for group in optimiser.param_groups:
                group["lr"] = recipe.peak_lr * lr_ratio(step, recipe.n_steps)
            optimiser.zero_grad()
            loss = _add_gradients(model, list(islice(stream, recipe.n_buckets)), recipe)
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            progress.update(bar, advance=1, description=f"{name} loss {loss:.3f}")
            yield step, loss


def _add_gradients(model: Decoder, buckets: list[Batch], recipe: Recipe) -> float:
    """Return the mean loss over all answer tokens of the buckets and leave its gradient."""
    counts = [int((batch.targets != IGNORED).sum()) for batch in buckets]
    total = 0.0
    for batch, count in zip(buckets, counts, strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.in_bfloat16):
            loss = answer_loss(model, batch) * (count / sum(counts))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def lr_ratio(step: int, n_steps: int) -> float:
    """Return the share of the peak rate: a short climb, level, then half a cosine down.

    Level until the decay, so that a run may be shortened or prolonged while it is under way and
    still equals one that had that length from the start.
    """
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    decay_steps = round(DECAY_SHARE * n_steps)
    done = max(0, step - (n_steps - decay_steps)) / decay_steps
    return FINAL_LR_RATIO + (1 - FINAL_LR_RATIO) * (1 + cos(pi * done)) / 2


def answer_loss(model: Decoder, batch: Batch) -> Tensor:
    """Return the mean loss over answer tokens; only these are projected to the vocabulary."""
    hidden, _ = model.model(batch.tokens)
    learnt = batch.targets != IGNORED
    return functional.cross_entropy(model.logits(hidden[learnt]), batch.targets[learnt])


def _restore(state: Path, model: Decoder, optimiser: torch.optim.Optimizer) -> int:
    if not state.exists():
        return 0
    kept: dict[str, Any] = torch.load(state, weights_only=True)
    model.load_state_dict(kept["model"])
    optimiser.load_state_dict(kept["optimiser"])
    return int(kept["step"])


def _save(state: Path, model: Decoder, optimiser: torch.optim.Optimizer, step: int) -> None:
    kept = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    save_state(state, kept)
