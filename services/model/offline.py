"""Work on a model directory without serving it: import, generate, bench.

    python -m services.model.offline import HF_DIR OUT_DIR --precision int4

The `zeta` program runs this as a process of its own, since it must not load a runtime itself and
has to stop a running import cleanly. Stdout is one JSON object per line: {"progress": …} and
{"text": …} as it goes, and at the end {"result": …} or {"error": "a sentence"}.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

import msgspec

from services.kit.errors import ZetaError
from services.model import importer, solo, speed
from services.model.graph.decoder import PRECISIONS
from services.model.graph.dialects import DIALECTS

INTERRUPTED = 130
_EVERY_S = 0.05


def main() -> None:
    """Read the command line, do what it says, report."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    arguments = _parser().parse_args()
    try:
        outcome = _outcome(arguments)
        _say(outcome)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # nobody waits for us any longer
        sys.exit(1)
    sys.exit("error" in outcome)


def _outcome(arguments: argparse.Namespace) -> Mapping[str, Any]:
    work: Callable[[argparse.Namespace], Any] = arguments.work
    try:
        return {"result": work(arguments)}
    except ZetaError as error:
        return {"error": str(error)}


def _import(arguments: argparse.Namespace) -> Any:
    found = importer.convert(
        arguments.source,
        arguments.target,
        arguments.precision,
        dialect=arguments.dialect,
        progress=_Told(),
        threads=arguments.threads,
    )
    return msgspec.to_builtins(found)


def _generate(arguments: argparse.Namespace) -> Any:
    asked = solo.Asked(
        prompt=arguments.prompt,
        raw=arguments.raw,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )
    found = solo.generate(
        arguments.folder,
        asked,
        threads=arguments.threads,
        on_text=lambda text: _say({"text": text}),
    )
    return asdict(found)


def _bench(arguments: argparse.Namespace) -> Any:
    found = speed.bench(arguments.folder, threads=arguments.threads, progress=_Told(every_s=0))
    return asdict(found)


class _Told:
    """Reports progress, not too often."""

    def __init__(self, every_s: float = _EVERY_S) -> None:
        self._every_s, self._last = every_s, ("", 0.0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """As `importer.Progress`."""
        before, at = self._last
        if stage == before and done < total and monotonic() - at < self._every_s:
            return
        self._last = (stage, monotonic())
        _say({"progress": {"stage": stage, "done": done, "total": total}})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.model.offline", description=__doc__)
    commands = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--threads", type=int, default=1)

    one = commands.add_parser("import", parents=[shared])
    one.add_argument("source", type=Path)
    one.add_argument("target", type=Path)
    one.add_argument("--precision", choices=PRECISIONS, default="fp32")
    one.add_argument("--dialect", choices=DIALECTS, default="ort")
    one.set_defaults(work=_import)

    one = commands.add_parser("generate", parents=[shared])
    one.add_argument("folder", type=Path)
    one.add_argument("prompt")
    one.add_argument("--raw", action="store_true")
    one.add_argument("--max-tokens", type=int, default=256)
    one.add_argument("--temperature", type=float)
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(work=_generate)

    one = commands.add_parser("bench", parents=[shared])
    one.add_argument("folder", type=Path)
    one.set_defaults(work=_bench)
    return parser


def _say(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End what runs; a second signal must not break off its tidying up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
