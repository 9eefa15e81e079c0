"""`zeta simulate`: policies and balancers on a fleet that does not exist, in simulated time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from services.kit import log as kit_log
from services.kit.errors import ConfigError
from zeta_client.cli import shell
from zeta_client.cli.bench import bar, comparison, pictured
from zeta_client.load import figures, plot, ways
from zeta_client.load.figures import Objective
from zeta_client.load.send import Result
from zeta_client.load.ways import Way
from zeta_client.sim import scenario as scenarios
from zeta_client.sim.bound import most_right
from zeta_client.sim.draw import Drawn, draw
from zeta_client.sim.scenario import Scenario
from zeta_client.sim.world import World


def simulate(
    file: Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="Models, load, failures")],
    *,
    compare: Annotated[
        str,
        typer.Option(
            metavar="A,B,…",
            help="routed, routed:BALANCER, static:BALANCER, only:MODEL, all:BALANCER",
        ),
    ] = "routed",
    scale: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Times the replicas and the load")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same result")] = 0,
    picture: Annotated[
        Path | None, typer.Option("--plot", metavar="OUT.png", help="Draw latency and goodput")
    ] = None,
    bound: Annotated[
        bool, typer.Option("--bound", help="Also what no way could exceed, knowing every answer")
    ] = False,
    as_json: shell.Json = False,
) -> None:
    """Compare ways to route on a simulated fleet: the router's own decisions, given step costs."""
    kit_log.configure("simulate", "error")
    try:
        if picture:
            plot.check(picture)
        scene = scenarios.scaled(scenarios.load(file), scale)
        names = [t for each in compare.split(",") if (t := each.strip())]
        drawn = draw(scene, seed)
        runs = _runs(scene, ways.parse_all(names, scenarios.fleet_of(scene)), drawn, seed)
    except ConfigError as error:
        shell.fail(str(error))
    total_s = scene.deadline_s if scene.slo_ttft_s is None else None
    objective = Objective(ttft_s=scene.slo_ttft_s, total_s=scene.slo_total_s or total_s)
    found = {n: figures.summary(r, objective, scene.duration_s) for n, r in runs.items()}
    most = {"most_right_per_s": most_right(scene, drawn) / scene.duration_s} if bound else {}
    if as_json:
        replicas = sum(model.replicas for model in scene.models)
        shell.emit({"replicas": replicas, "seed": seed, "runs": found, **most})
    else:
        shell.out().print(comparison(found, scene.duration_s))
        for per_s in most.values():
            shell.out().print(f"right and in time, whatever the way: at most {per_s:.1f}/s")
    if picture:
        pictured(picture, runs, objective, scene.duration_s)


def _runs(
    scene: Scenario, chosen: Sequence[Way], drawn: Sequence[Drawn], seed: int
) -> Mapping[str, list[Result]]:
    found = {}
    for way in chosen:
        with bar(way.name, len(drawn)) as show:
            found[way.name] = World(scene, way, drawn, seed).run(show)
    return found
