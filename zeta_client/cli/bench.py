"""`zeta bench`: requests at a given rate, come what may, and how many are answered in time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.table import Table

from services.kit import aio
from services.kit import log as kit_log
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError
from zeta_client import wire
from zeta_client.async_client import AsyncClient
from zeta_client.cli import shell
from zeta_client.cli.up import started, state_in
from zeta_client.fleet.processes import in_state_dir, on_free_ports
from zeta_client.load import figures, options, plot, ways
from zeta_client.load.arrivals import Arrival
from zeta_client.load.figures import Objective
from zeta_client.load.send import Result, send
from zeta_client.load.shots import PRIORITIES, Shot, shots, words
from zeta_client.load.ways import Way
from zeta_client.tasks import Task, generate, is_correct

_CALLERS: Final = 4
_COUNTED: Final = 60
"""Words whose tokens are counted to learn how many a word has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of every way."""

    arrivals: Sequence[Arrival]
    mix: Mapping[str, float]
    priorities: Mapping[str, float]
    tenants: Mapping[str, float]
    deadline_s: float | None
    length_ratio: float
    returns: int
    seed: int
    warm_up: int


def bench(
    *,
    rate: Annotated[float, typer.Option(min=0.01, help="Mean requests per second")] = 20.0,
    duration: Annotated[float, typer.Option(min=0.1, metavar="S", help="Of each run")] = 30.0,
    compare: Annotated[
        str,
        typer.Option(
            metavar="A,B,…",
            help="POLICY, POLICY:BALANCER, static:BALANCER, only:MODEL, all:BALANCER; "
            "default: the default policy",
        ),
    ] = "",
    mix: Annotated[
        str, typer.Option(metavar="KIND=W,…", help="Weights of code, reasoning and general")
    ] = "code=1,reasoning=1,general=1",
    priorities: Annotated[
        str, typer.Option(metavar="CLASS=W,…", help="Weights of batch, standard and critical")
    ] = "standard=1",
    tenants: Annotated[
        str, typer.Option(metavar="NAME=W,…", help="Who asks, and how often; default: nobody named")
    ] = "",
    deadline: Annotated[
        float | None, typer.Option(min=0.001, max=86_400, metavar="S", help="Each request's own")
    ] = None,
    slo_ttft: Annotated[
        float | None, typer.Option(min=0.001, metavar="S", help="Good: first token by then")
    ] = None,
    slo_total: Annotated[
        float | None, typer.Option(min=0.001, metavar="S", help="Good: whole answer by then")
    ] = None,
    burst: Annotated[
        str,
        typer.Option(metavar="FACTOR,EVERY_S,FOR_S", help="Bursts, at the same mean rate"),
    ] = "",
    traces: Annotated[
        list[str] | None,
        typer.Option(
            "--trace",
            metavar="[KIND=]FILE.csv",
            help="All of a trace in --duration, thinned to --rate; several are merged",
        ),
    ] = None,
    length_ratio: Annotated[
        float,
        typer.Option(min=0, help="Text of the trace's lengths times this; 0: tasks, ranked alike"),
    ] = 0.0,
    returns: Annotated[
        int, typer.Option(min=0, metavar="N", help="How often who is refused comes back, when told")
    ] = 0,
    warm_up: Annotated[
        int, typer.Option(min=0, metavar="N", help="Prompts with feedback before the first run")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and questions")] = 0,
    start: Annotated[
        bool, typer.Option("--start", help="Start a fleet of its own for the benchmark")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--plot", metavar="OUT.png", help="Draw latency and goodput")
    ] = None,
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Load a fleet at a rate that does not wait for it; report what was answered in time."""
    settings = shell.load(config)
    kit_log.configure("bench", "warning")
    try:
        if picture:
            plot.check(picture)
        compared = compare or settings.router.default_policy
        chosen = ways.parse_all(
            [t for each in compared.split(",") if (t := each.strip())], settings
        )
        load = Load(
            arrivals=options.arrivals_of(rate, duration, burst, traces or [], seed),
            mix=options.weights("--mix", mix, options.KINDS),
            priorities=options.weights("--priorities", priorities, tuple(PRIORITIES)),
            tenants=options.weights("--tenants", tenants, ()) if tenants else {},
            deadline_s=deadline,
            length_ratio=length_ratio,
            returns=returns,
            seed=seed,
            warm_up=warm_up,
        )
    except ConfigError as error:
        shell.fail(str(error))
    objective = Objective(
        ttft_s=slo_ttft, total_s=deadline if slo_ttft is None and slo_total is None else slo_total
    )
    with state_in(None, "zeta-bench-") if start else nullcontext() as folder:
        own = in_state_dir(on_free_ports(settings), folder) if folder else None
        runs = shell.run(_bench(settings, chosen, load, target=target, own=own))
    found = {n: figures.summary(r, objective, duration) for n, r in runs.items()}
    if as_json:
        slo = {"ttft_s": objective.ttft_s, "total_s": objective.total_s}
        shell.emit({"duration_s": duration, "seed": seed, "slo": slo, "runs": found})
    else:
        for table in (comparison(found, duration), *groups(found)):
            shell.out().print(table)
    if picture:
        pictured(picture, runs, objective, duration)


async def _bench(
    config: FleetConfig,
    chosen: Sequence[Way],
    load: Load,
    *,
    target: str | None,
    own: FleetConfig | None,
) -> dict[str, list[Result]]:
    """Run the same load each way, one after the other, on a fleet of our *own* if there is one."""
    found: dict[str, list[Result]] = {}
    settings = own or config
    async with started(own) if own else nullcontext():
        router_at = shell.address(target, settings.router.listen)
        async with AsyncClient(router_at, settings=settings.server) as router:
            questions = await _questions(router, settings, load)
            with bar("warming up", load.warm_up) as show:
                await _warm(router, load, show)
            for way in chosen:
                async with AsyncExitStack() as opened:
                    call = await ways.call(way, settings, router, opened)
                    with bar(way.name, len(questions)) as show:
                        found[way.name] = await send(
                            questions,
                            call,
                            deadline_s=load.deadline_s,
                            returns=load.returns,
                            done=show,
                        )
    return found


async def _questions(router: AsyncClient, config: FleetConfig, load: Load) -> list[Shot]:
    tokens = 1.0
    if load.length_ratio:
        tokens = await router.count_tokens(words(_COUNTED), config.models[0].name) / _COUNTED
    return shots(
        load.arrivals,
        mix=load.mix,
        priorities=load.priorities,
        tenants=load.tenants,
        seed=load.seed,
        rng=np.random.default_rng(load.seed),
        length_ratio=load.length_ratio,
        tokens_per_word=tokens,
    )


async def _warm(router: AsyncClient, load: Load, show: Callable[[], None]) -> None:
    """Let the router learn from the verdict on prompts that no run will ask."""
    waiting = iter(generate(load.warm_up, split="demo", seed=load.seed + 1_000_000))

    async def caller() -> None:
        for task in waiting:
            await _taught(router, task)
            show()

    await aio.all_of(*(caller() for _ in range(_CALLERS)))


async def _taught(router: AsyncClient, task: Task) -> None:
    text, decision_id = "", ""
    async for event in router.generate(wire.question(task.prompt, temperature=0.0)):
        decision_id = event.started.decision_id or decision_id
        text += event.delta.text
    await router.feedback(decision_id, float(is_correct(task, text)), source="verifier:exact")


def pictured(
    picture: Path, runs: Mapping[str, Sequence[Result]], objective: Objective, duration_s: float
) -> None:
    """Draw the runs, last of all: where that fails, their figures have been shown."""
    try:
        plot.draw(picture, runs, objective, duration_s)
    except OSError as error:
        shell.fail(shell.of_system(error, picture))
    shell.notes().print(f"plots: {picture}")


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show progress on stderr, where that is a terminal."""
    with shell.progress(hidden=not total) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda *_: progress.advance(bar)


def comparison(found: Mapping[str, Mapping[str, Any]], duration_s: float) -> Table:
    """Tabulate the figures of each way."""
    first = next(iter(found.values()))
    table = Table(f"{first['requests']} requests in {duration_s:g} s")
    for title in ("good/s", "good", "right", "right, good/s", "ttft p50", "p99"):
        table.add_column(title, justify="right")
    for title in ("total p50", "p99", "late p99"):
        table.add_column(title, justify="right")
    table.add_column("not answered")
    for name, run in found.items():
        table.add_row(
            name,
            f"{run['goodput_per_s']:.1f}",
            f"{run['good_ratio']:.1%}",
            "" if run["right_ratio"] is None else f"{run['right_ratio']:.1%}",
            "" if run["good_and_right_per_s"] is None else f"{run['good_and_right_per_s']:.1f}",
            *(_ms(run["ttft_s"][q]) for q in ("p50", "p99")),
            *(_ms(run["total_s"][q]) for q in ("p50", "p99")),
            _ms(run["generator_late_s"]["p99"]),
            _shed(run),
        )
    return table


def groups(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """Tabulate what classes and tenants got, where there are several."""
    for title, key in (("class", "by_priority"), ("tenant", "by_tenant")):
        names = list(dict.fromkeys(name for run in found.values() for name in run[key]))
        if len(names) < 2:  # noqa: PLR2004 - several
            continue
        table = Table("", title)
        for figure in ("requests", "good", "good/s", "ttft p50", "p99", "total p50", "p99"):
            table.add_column(figure, justify="right")
        table.add_column("not answered")
        for way, run in found.items():
            for name in names:
                table.add_row(way, name, *_of_group(run[key][name]))
        yield table


def _of_group(run: Mapping[str, Any]) -> Iterator[str]:
    yield f"{run['requests']}"
    yield f"{run['good_ratio']:.1%}"
    yield f"{run['goodput_per_s']:.1f}"
    for times in (run["ttft_s"], run["total_s"]):
        yield from (_ms(times[q]) for q in ("p50", "p99"))
    yield _shed(run)


def _shed(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {reason.lower()}" for reason, n in run["shed"].items())


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.0f} ms"
