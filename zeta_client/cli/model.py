"""`zeta model`: import a checkpoint, generate with it, time it; no fleet is needed.

The work is done by `python -m services.model.offline`, a process of its own: this program must not
load a runtime (pyproject's import contracts), and a process can be stopped at any point.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TimeRemainingColumn
from rich.table import Table

from services.kit.errors import ZetaError
from zeta_client import hub
from zeta_client.cli import shell

_LINE_BYTES = 1 << 26

model = typer.Typer(help="Models on this machine, without a fleet.", no_args_is_help=True)


class Precision(StrEnum):
    """How weights are stored."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"


class Dialect(StrEnum):
    """For which runtime a graph is written."""

    ORT = "ort"
    TRT = "trt"


Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="An imported model or a Hugging Face directory")
]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Default: one per core")]


@model.command("import")
@shell.ends_on_interrupt
def import_(
    source: Annotated[Path, typer.Argument(metavar="HF_DIR", help="A Hugging Face directory")],
    target: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="A new directory")],
    *,
    precision: Annotated[Precision, typer.Option(help="How to store weights")] = Precision.FP32,
    dialect: Annotated[
        Dialect, typer.Option(help="For ONNX Runtime (ort) or TensorRT (trt)")
    ] = Dialect.ORT,
    threads: Threads = None,
    as_json: shell.Json = False,
) -> None:
    """Convert a checkpoint once, check the result, and leave it ready to serve."""
    options = ("--precision", precision.value, "--dialect", dialect.value, *_threads(threads))
    found = _work("import", options, (str(source), str(target)), as_json=as_json)
    size_bytes = sum(file["size_bytes"] for file in found["files"].values())
    if as_json:
        shell.emit({"dir": str(target), "size_bytes": size_bytes, **found})
        return
    check = found["check"]
    shell.say(
        f"{target}: {found['precision']}, {size_bytes / 1e6:,.1f} MB; against float32: "
        f"top-1 {check['top1_ratio']:.0%} of {check['positions']}, cosine {check['cosine']:.4f}"
    )


@model.command()
@shell.ends_on_interrupt
def check(folder: Directory, *, as_json: shell.Json = False) -> None:
    """Compare every byte of an imported model with what the import wrote."""
    found = _work("check", (), (str(folder),), as_json=as_json)
    if as_json:
        shell.emit({"dir": str(folder), **found})
    else:
        shell.say(
            f"{folder}: {found['files']} files, {found['size_bytes'] / 1e6:,.1f} MB, as written"
        )


@model.command()
@shell.ends_on_interrupt
def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Such as Qwen/Qwen3-4B")],
    target: Annotated[
        Path | None, typer.Argument(metavar="OUT_DIR", help="A new directory; default: REPO's name")
    ] = None,
    *,
    revision: Annotated[str, typer.Option(help="A branch, a tag or a commit")] = "main",
    also: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Fetch these files as well")
    ] = None,
    as_json: shell.Json = False,
) -> None:
    """Fetch a checkpoint from a Hugging Face hub; again, it goes on where it was."""
    place = target or Path(repo.rpartition("/")[2])
    try:
        with _shown("fetching", hidden=as_json) as progress:
            found = hub.pull(
                repo, place, revision=revision, also=tuple(also or ()), progress=progress
            )
    except ZetaError as error:
        shell.fail(str(error))
    size_bytes = sum(found.files.values())
    if as_json:
        shell.emit({"dir": str(place), "size_bytes": size_bytes, **asdict(found)})
    else:
        shell.say(
            f"{place}: {len(found.files)} files, {size_bytes / 1e6:,.1f} MB, {found.commit}\n"
            f"next: zeta model import {place} OUT_DIR --precision int4"
        )


@model.command()
@shell.ends_on_interrupt
def generate(
    folder: Directory,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The question")],
    *,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest token each time")] = False,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer")] = 256,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0: greedy; default: the model's")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the chance in sampling")] = 0,
    samples: Annotated[int, typer.Option(metavar="N", min=1, max=16, help="Several answers")] = 1,
    raw: Annotated[bool, typer.Option("--raw", help="Without the chat template")] = False,
    threads: Threads = None,
    as_json: shell.Json = False,
) -> None:
    """Answer one prompt in this process's own engine."""
    chosen = 0.0 if greedy else temperature
    options = [*_threads(threads), "--max-tokens", str(max_tokens), "--seed", str(seed)]
    options += ["--samples", str(samples), *["--raw"] * raw]
    options += [] if chosen is None else ["--temperature", str(chosen)]
    found = _work("generate", options, (str(folder), prompt), as_json=as_json)
    if as_json:
        shell.emit(found)
        return
    if samples == 1:
        shell.say("")
    for number, sample in enumerate(found["samples"] if samples > 1 else ()):
        shell.notes().print(f"sample {number} · {sample['finish_reason']}", style="dim")
        shell.say(sample["text"])
    tokens = sum(len(sample["token_ids"]) for sample in found["samples"])
    shell.notes().print(
        f"{tokens} tokens, {found['tokens_per_s']:.0f}/s · first token "
        f"{found['ttft_s'] * 1e3:.0f} ms · {found['finish_reason']}",
        style="dim",
    )


@model.command()
@shell.ends_on_interrupt
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the fleet")],
    *,
    config: Annotated[Path, typer.Option(metavar="FILE", help="The fleet's configuration")],
    as_json: shell.Json = False,
) -> None:
    """Build a model's TensorRT plan for this machine's GPU, before the fleet starts."""
    found = _work("build", ("--config", str(config)), (name,), as_json=as_json)
    if as_json:
        shell.emit(found)
    else:
        shell.say(f"{found['model']}: {found['precision']}, ready in {found['plan_dir']}")


@model.command()
@shell.ends_on_interrupt
def bench(folder: Directory, *, threads: Threads = None, as_json: shell.Json = False) -> None:
    """Time prefill and decode by batch size, and against what memory bandwidth allows."""
    found = _work("bench", _threads(threads), (str(folder),), as_json=as_json)
    if as_json:
        shell.emit(found)
    else:
        shell.out().print(_table(folder, found))


def _threads(count: int | None) -> tuple[str, str]:
    return "--threads", str(count or len(os.sched_getaffinity(0)))


def _work(
    command: str, options: tuple[str, ...] | list[str], places: tuple[str, ...], *, as_json: bool
) -> Mapping[str, Any]:
    """Run a command of `services.model.offline` and return its result."""
    # After "--" a prompt that begins with a dash is no option.
    arguments = (command, *options, "--", *places)
    found: list[Mapping[str, Any]] = []
    shell.run(_watched(arguments, found, quiet=as_json))
    return found[0]


async def _watched(
    arguments: tuple[str, ...], found: list[Mapping[str, Any]], *, quiet: bool
) -> None:
    """Show what the process tells; its result goes to *found*."""
    wrong = ""
    with shell.progress(TimeRemainingColumn()) as progress:
        bar = progress.add_task("loading", total=None)
        async with _process(arguments) as process:
            assert process.stdout is not None, "a pipe was asked for"
            async for line in process.stdout:
                match json.loads(line):
                    case {"progress": {"stage": stage, "done": done, "total": total}}:
                        progress.update(bar, description=stage, completed=done, total=total)
                    case {"text": text}:
                        progress.stop()
                        _write("" if quiet else text)
                    case {"error": str(message)}:
                        wrong = message
                    case {"result": result}:
                        found.append(result)
            code = await process.wait()
    if not found:
        raise ZetaError(wrong or f"the work ended with code {code}; see above")


@contextmanager
def _shown(first: str, *, hidden: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Draw a bar in a terminal, of whatever is told last."""
    with shell.progress(TimeRemainingColumn(), hidden=hidden) as progress:
        bar = progress.add_task(first, total=None)
        yield lambda stage, done, total: progress.update(
            bar, description=stage, completed=done, total=total
        )


@asynccontextmanager
async def _process(arguments: tuple[str, ...]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the worker; whatever ends this ends it too, and waits until it has tidied up."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.model.offline", *arguments),
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        # Ctrl-C reaches the whole group: we pass it on, once.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.communicate()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _table(folder: Path, found: Mapping[str, Any]) -> Table:
    title = (
        f"{folder.name}: {found['precision']}, {found['parameters'] / 1e6:,.1f} M parameters, "
        f"{found['threads']} threads; memory {found['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s, "
        f"weights {found['step_bytes'] / 1e6:,.1f} MB a step; prompts of {found['prompt_tokens']}"
    )
    table = Table(title=title, title_justify="left", title_style="dim")
    for column in ("batch", "prefill tok/s", "ttft ms", "decode tok/s", "of memory limit"):
        table.add_column(column, justify="right")
    for row in found["speeds"]:
        table.add_row(
            str(row["batch"]),
            f"{row['prefill_tokens_per_s']:,.0f}",
            f"{row['ttft_s'] * 1e3:,.1f}",
            f"{row['decode_tokens_per_s']:,.0f}",
            f"{row['bandwidth_ratio']:.0%}",
        )
    return table
