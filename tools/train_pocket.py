"""Train the pocket fleet and measure it.

All three models, as committed, about 45 minutes of processor time:

    python -m tools.train_pocket --model all --threads 1 --seed 7

Needs the `train` extra. A run that was stopped goes on where it was when started again with the
same arguments; `--steps` shortens it for a trial, `--report-only` measures what is there.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from tools.pocket.recipes import RECIPES
from tools.pocket.report import report
from tools.pocket.text import trained_tokenizer
from tools.pocket.training import train

SHORT_NAMES: Final = {name.removeprefix("pocket-"): name for name in RECIPES}


def main() -> None:
    """Train what was asked for, then measure every model that lies under `--out`."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in _to_train(arguments):
        recipe = RECIPES[name]
        train(
            name,
            replace(recipe, n_steps=arguments.steps or recipe.n_steps),
            trained_tokenizer(arguments.seed),
            seed=arguments.seed,
            out=arguments.out,
            state=arguments.state / f"{name}.pt",
        )
    if not arguments.no_report:
        print(report(arguments.out, count=arguments.count, seed=arguments.seed))


def _to_train(arguments: argparse.Namespace) -> list[str]:
    if arguments.report_only:
        return []
    return list(RECIPES) if arguments.model == "all" else [SHORT_NAMES[arguments.model]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", choices=("all", *SHORT_NAMES), default="all")
    parser.add_argument("--out", type=Path, default=Path("services/model/pocket"))
    parser.add_argument("--state", type=Path, default=Path("state/pocket"), help="to resume from")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=1500, help="held-out prompts to measure on")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--no-report", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
