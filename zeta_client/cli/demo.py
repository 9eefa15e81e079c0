"""`zeta demo`: the pocket fleet answers prompts with known answers, and learns as it goes."""

import csv
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console

from services.kit import aio
from services.kit import log as kit_log
from services.kit.config import FleetConfig
from zeta_client import wire
from zeta_client.answer import Answer
from zeta_client.async_client import AsyncClient
from zeta_client.cli import results, shell, tally
from zeta_client.cli.tally import Result
from zeta_client.cli.up import StateDir, started, state_in
from zeta_client.fleet.processes import in_state_dir, on_free_ports
from zeta_client.tasks import Task, generate, is_correct

CALLERS = 4
"""Prompts that are on their way at the same time."""

Show = Callable[[int, Task, Result], None]


def demo(
    *,
    prompts: Annotated[int, typer.Option(min=1, metavar="N", help="How many to ask")] = 120,
    seed: Annotated[int, typer.Option(help="Which ones")] = 0,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write down how each model alone did on each prompt"),
    ] = None,
    state_dir: StateDir = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Show routing at work: a fleet of its own, real prompts, feedback, and what it came to."""
    settings = on_free_ports(shell.load(config))
    kit_log.configure("demo", "warning")
    tasks = generate(prompts, split="demo", seed=seed)
    with state_in(state_dir, "zeta-demo-") as folder:
        routed, singles = shell.run(_demo(in_state_dir(settings, folder), tasks, quiet=as_json))
    if record is not None:
        _recorded(record, tasks, singles)
    found = tally.summary(routed, singles)
    if as_json:
        shell.emit(found)
    else:
        results.conclude(shell.out(), routed, singles)


async def _demo(
    config: FleetConfig, tasks: Sequence[Task], *, quiet: bool
) -> tuple[list[Result], Mapping[str, list[Result]]]:
    """Ask everything through the router first, then each model alone."""
    async with started(config):
        console = shell.notes() if quiet else shell.out()
        async with AsyncClient(config.router.listen, settings=config.server) as router:
            with _bar(console, "routed", tasks, lines=not quiet) as show:
                routed = await _ask_all(tasks, partial(_routed, router), show)
        singles = {}
        for model in config.models:
            address = model.replicas[0].listen
            async with AsyncClient(address, settings=config.server) as alone:
                with _bar(console, f"{model.name} alone", tasks, lines=False) as show:
                    singles[model.name] = await _ask_all(tasks, partial(_asked, alone), show)
    return routed, singles


async def _ask_all(
    tasks: Sequence[Task], ask: Callable[[Task], Awaitable[Result]], show: Show
) -> list[Result]:
    """Ask every task, a few at a time, in order; the first error ends it."""
    found: dict[int, Result] = {}
    waiting = iter(enumerate(tasks))

    async def caller() -> None:
        for i, task in waiting:
            found[i] = await ask(task)
            show(i, task, found[i])

    await aio.all_of(*(caller() for _ in range(CALLERS)))
    return [found[i] for i in range(len(tasks))]


async def _routed(router: AsyncClient, task: Task) -> Result:
    """Ask the router, and tell it whether the answer was right."""
    answer = await _answer(router, task)
    result = _judged(task, answer)
    await router.feedback(answer.decision_id, float(result.right), source="verifier:exact")
    return result


async def _asked(model: AsyncClient, task: Task) -> Result:
    """Ask a model server directly, so that the router learns nothing from it."""
    return _judged(task, await _answer(model, task))


async def _answer(client: AsyncClient, task: Task) -> Answer:
    answer, start_s = Answer(), perf_counter()
    async for event in client.generate(wire.question(task.prompt, temperature=0.0)):
        answer.add(event, perf_counter() - start_s)
    return answer


def _judged(task: Task, answer: Answer) -> Result:
    return Result(
        right=is_correct(task, answer.text),
        plan=answer.plan,
        model=answer.model,
        ttft_s=answer.ttft_s,
        total_s=answer.total_s,
        tokens=answer.complete.usage.completion_tokens,
    )


def _recorded(file: Path, tasks: Sequence[Task], singles: Mapping[str, Sequence[Result]]) -> None:
    """Write a table of outcomes: a prompt column, and score__MODEL each."""
    try:
        with file.open("w", encoding="utf-8", newline="") as opened:
            table = csv.writer(opened, lineterminator="\n")
            table.writerow(["prompt", *(f"score__{model}" for model in singles)])
            for i, task in enumerate(tasks):
                table.writerow([task.prompt, *(int(r[i].right) for r in singles.values())])
    except OSError as error:
        shell.fail(f"--record {file}: {error.strerror}; the results are lost, nothing else is")


@contextmanager
def _bar(console: Console, title: str, tasks: Sequence[Task], *, lines: bool) -> Iterator[Show]:
    """Show progress, and with *lines* each result as it comes."""
    right = 0
    with shell.progress(console=console) as progress:
        bar = progress.add_task(title, total=len(tasks))

        def show(i: int, task: Task, result: Result) -> None:
            nonlocal right
            right += result.right
            if lines:
                results.line(progress.console, i, task, result)
            progress.advance(bar)
            done = progress.tasks[0].completed
            progress.update(bar, description=f"{title}: {right / done:.0%} right")

        yield show
