"""Work on a model directory without serving it: import, generate, bench, build.

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

from services.kit import config as kit_config
from services.kit.errors import ConfigError, ZetaError, invalid
from services.model import importer, solo, speed
from services.model.graph import manifest
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
    try:
        arguments.prompt.encode()
    except UnicodeEncodeError:
        raise invalid(
            "prompt", f"{arguments.prompt!r:.80} is no Unicode text; give UTF-8"
        ) from None
    asked = solo.Asked(
        prompt=arguments.prompt,
        raw=arguments.raw,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
        samples=arguments.samples,
    )
    found = solo.generate(
        arguments.folder,
        asked,
        threads=arguments.threads,
        on_text=lambda text: _say({"text": text}) if asked.samples == 1 else None,
    )
    return asdict(found)


def _bench(arguments: argparse.Namespace) -> Any:
    found = speed.bench(arguments.folder, threads=arguments.threads, progress=_Told(every_s=0))
    return asdict(found)


def _check(arguments: argparse.Namespace) -> Any:
    found = manifest.read(arguments.folder)
    size_bytes, done, told = sum(f.size_bytes for f in found.files.values()), 0, _Told()

    def on_read(count: int) -> None:
        nonlocal done
        done += count
        told("comparing", done, size_bytes)

    manifest.verify(arguments.folder, found, weights=True, on_read=on_read)
    return {"files": len(found.files), "size_bytes": size_bytes}


def _build(arguments: argparse.Namespace) -> Any:
    from services.model import process  # noqa: PLC0415 - no other command needs a service

    settings = kit_config.model_named(kit_config.load(arguments.config), arguments.model)
    if settings.runtime != "tensorrt":
        raise ConfigError(f"model {settings.name!r} runs on {settings.runtime}: nothing to build")
    model, _ = process.load(settings, settings.name, _Told())
    return {
        "model": model.name,
        "precision": model.precision,
        "plan_dir": settings.tensorrt.plan_dir,
    }


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
    one.add_argument("--samples", type=int, default=1)
    one.set_defaults(work=_generate)

    one = commands.add_parser("check", parents=[shared])
    one.add_argument("folder", type=Path)
    one.set_defaults(work=_check)

    one = commands.add_parser("build")
    one.add_argument("--config", type=Path, required=True)
    one.add_argument("model")
    one.set_defaults(work=_build)

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
