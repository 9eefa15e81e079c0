"""Ask the published models held-out prompts and write down who can do what."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from tools.pocket.checkpoint import load
from tools.pocket.network import Decoder
from tools.pocket.recipes import RECIPES
from tools.pocket.text import END, chat, token_id
from zeta_client.tasks import FAMILIES, Task, generate, is_correct

COMMAND: Final = "python -m tools.train_pocket --model all --threads 1 --seed {seed}"
MAX_NEW_TOKENS: Final = 160
ROWS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one model did with the prompts, in their order."""

    n_parameters: int
    size_bytes: int
    correct: list[bool]
    output_tokens: list[int]


def report(directory: Path, *, count: int, seed: int) -> str:
    """Evaluate every published model, write results.json and RESULTS.md, return the latter."""
    tasks = generate(count, split="heldout", seed=seed)
    names = [name for name in RECIPES if (directory / name).is_dir()]
    results = {name: evaluate(name, directory / name, tasks) for name in names}
    summary = _summary(tasks, results) | {"command": COMMAND.format(seed=seed), "seed": seed}
    content = json.dumps(summary, indent=2) + "\n"
    (directory / "results.json").write_text(content, encoding="utf-8")
    page = _page(summary)
    (directory / "RESULTS.md").write_text(page, encoding="utf-8")
    return page


def evaluate(name: str, directory: Path, tasks: Sequence[Task]) -> Result:
    """Ask the model in `directory` each task, greedily."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    model = load(directory, RECIPES[name].shape)
    replies = answers(model, tokenizer, [chat(task.prompt) for task in tasks])
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in replies]
    return Result(
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        size_bytes=(directory / "model.safetensors").stat().st_size,
        correct=[is_correct(task, text) for task, text in zip(tasks, texts, strict=True)],
        output_tokens=[len(ids) for ids in replies],
    )


def answers(model: Decoder, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Return the ids of greedy replies; prompts of equal length go together, without padding."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
    for index, ids in enumerate(encoded):
        by_length[len(ids)].append(index)
    replies: dict[int, list[int]] = {}
    for indices in by_length.values():
        for start in range(0, len(indices), ROWS_AT_ONCE):
            rows = indices[start : start + ROWS_AT_ONCE]
            prompt = torch.tensor([encoded[row] for row in rows])
            replies |= zip(rows, _greedy(model, prompt, token_id(tokenizer, END)), strict=True)
    return [replies[index] for index in range(len(prompts))]


@torch.inference_mode()
def _greedy(model: Decoder, prompt: torch.Tensor, end: int) -> list[list[int]]:
    tokens, past, columns = prompt, None, []
    is_done = torch.zeros(len(prompt), dtype=torch.bool)
    for _ in range(MAX_NEW_TOKENS):
        hidden, past = model.model(tokens, past)
        tokens = model.logits(hidden[:, -1]).argmax(dim=-1, keepdim=True)
        columns.append(tokens)
        is_done |= tokens[:, 0] == end
        if is_done.all():
            break
    rows = torch.cat(columns, dim=1).tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def _summary(tasks: Sequence[Task], results: Mapping[str, Result]) -> dict[str, Any]:
    right = {name: result.correct for name, result in results.items()}
    right["oracle"] = [any(row) for row in zip(*right.values(), strict=True)]
    groups: dict[str, list[int]] = {"all": list(range(len(tasks)))}
    for key in FAMILIES:
        groups[key] = [i for i, task in enumerate(tasks) if task.family == key]
    accuracy = {
        name: {group: _percent([row[i] for i in rows]) for group, rows in groups.items()}
        for name, row in right.items()
    }
    by_family = {key: max(accuracy[name][key] for name in results) for key in FAMILIES}
    best = max(results, key=lambda name: accuracy[name]["all"])
    return {
        "count": len(tasks),
        "prompts": {group: len(rows) for group, rows in groups.items()},
        "accuracy_percent": accuracy,
        "best_single": best,
        "best_single_percent": accuracy[best]["all"],
        "best_by_family_percent": round(
            sum(by_family[key] * len(groups[key]) for key in FAMILIES) / len(tasks), 1
        ),
        "oracle_percent": accuracy["oracle"]["all"],
        "mean_output_tokens": {
            name: round(sum(result.output_tokens) / len(tasks), 1)
            for name, result in results.items()
        },
        "parameters": {name: result.n_parameters for name, result in results.items()},
        "size_bytes": {name: result.size_bytes for name, result in results.items()},
    }


def _percent(outcomes: Sequence[bool]) -> float:
    return round(100 * sum(outcomes) / max(1, len(outcomes)), 1)


def _page(summary: Mapping[str, Any]) -> str:
    accuracy = summary["accuracy_percent"]
    names = list(accuracy)
    gap = summary["oracle_percent"] - summary["best_single_percent"]
    lines = [
        "# What the pocket models can do",
        "",
        f"Greedy answers to {summary['count']} held-out prompts, share that is right in percent. ",
        "No problem among them was in training (for facts: no such wording of the fact).",
        "",
        "```",
        summary["command"],
        "```",
        "",
        _row("family", "prompts", *names),
        _row(*["---"] * (len(names) + 2)),
    ]
    lines += [
        _row(group, count, *(accuracy[name][group] for name in names))
        for group, count in summary["prompts"].items()
    ]
    per_model = ("parameters", "size_bytes", "mean_output_tokens")
    lines += [
        _row(key.replace("_", " "), "", *(summary[key].get(name, "") for name in names))
        for key in per_model
    ]
    lines += [
        "",
        f"Best single model: {summary['best_single']}, {summary['best_single_percent']} %.",
        f"Best model of each family, if that were known: {summary['best_by_family_percent']} %.",
        f"Oracle, right if any model is: {summary['oracle_percent']} %,",
        f"{gap:.1f} points above the best single model.",
        "",
    ]
    return "\n".join(line.rstrip() for line in lines)


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
