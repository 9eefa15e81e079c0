"""Two real routers on one fleet, and whether they all go where it last looked best.

    python -m tests.bench.routers [--seconds 20] [--rate 14] [--intervals 0.1 1.0] [--seed 7]

Four replicas of one model, slowed to a larger one's pace, at about 70 % load, reports every so many
seconds. The same open-loop requests go to one router, then by turns to two that know nothing of
each other but what telemetry says. Routers that herd would send what they get between two reports
to the same replica: its share of a window's requests shows that. *spread* is the mean over windows
of the largest share minus the smallest.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import numpy as np
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit import config
from services.kit.channel import open_channel
from services.kit.config import Server
from services.kit.probe import SERVING, health
from tests.system.calls import endless
from tests.system.fleet import another_router, eventually, free_address, running

REPLICAS, RUNNING, STEP_S, TOKENS = 4, 4, 0.025, 30
WINDOW_S = 1.0
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One request."""

    due_s: float
    replica: str
    total_s: float
    """Since it was due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How the work of one run was spread."""

    requests: int
    shares: dict[str, float]
    """Of all requests, by replica."""
    spread: float
    p50_s: float
    p99_s: float


def figures(served: Sequence[Served]) -> Figures:
    """Sum up a run."""
    names = sorted({each.replica for each in served})
    windows: dict[int, list[str]] = {}
    for each in served:
        windows.setdefault(int(each.due_s / WINDOW_S), []).append(each.replica)
    shares = [[w.count(name) / len(w) for name in names] for w in windows.values()]
    spreads = [max(s) - (min(s) if len(names) == REPLICAS else 0.0) for s in shares]
    p50_s, p99_s = np.quantile([each.total_s for each in served], (0.5, 0.99))
    return Figures(
        requests=len(served),
        shares={n: sum(e.replica == n for e in served) / len(served) for n in names},
        spread=float(np.mean(spreads)),
        p50_s=float(p50_s),
        p99_s=float(p99_s),
    )


async def compare(
    folder: Path, *, interval_s: float, seconds: float, rate: float, seed: int
) -> dict[str, Figures]:
    """Run the same requests through one router and through two."""
    with running(folder, lambda fleet: _alike(fleet, interval_s)) as fleet:
        second = _second(fleet.config, folder)
        with another_router(second, folder):
            targets = [fleet.router, second.router.listen]
            await eventually(lambda: _serves(targets[1]), _TIMEOUT_S, "the second router")
            due_s = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, 100_000))
            due_s = due_s[due_s < seconds]
            await _run(targets, due_s[:REPLICAS])  # first connections
            return {
                "one router": figures(await _run(targets[:1], due_s)),
                "two routers": figures(await _run(targets, due_s)),
            }


async def _run(targets: Sequence[str], due_s: "np.ndarray[Any, Any]") -> list[Served]:
    async with AsyncExitStack() as stack:
        stubs: list[Any] = []
        for target in targets:
            channel = await stack.enter_async_context(open_channel(target, Server()))
            stubs.append(InferenceServiceStub(channel))
        start_s = monotonic()

        async def one(i: int, at_s: float) -> Served:
            await asyncio.sleep(at_s - (monotonic() - start_s))
            call = stubs[i % len(stubs)].Generate(endless("", TOKENS), timeout=_TIMEOUT_S)
            events = [event async for event in call]
            total_s = monotonic() - start_s - at_s
            return Served(due_s=at_s, replica=events[0].started.replica, total_s=total_s)

        return await asyncio.gather(*(one(i, float(at_s)) for i, at_s in enumerate(due_s)))


def _alike(fleet: config.FleetConfig, interval_s: float) -> config.FleetConfig:
    """Keep one model of *fleet*, in several replicas at a larger model's pace."""
    replace = msgspec.structs.replace
    served = tuple(config.Replica(listen=f"127.0.0.1:{7090 + i}") for i in range(REPLICAS))
    model = replace(
        fleet.models[0], max_running=RUNNING, pace=config.Pace(step_s=STEP_S), replicas=served
    )
    telemetry = replace(fleet.telemetry, report_interval_s=interval_s)
    return replace(fleet, models=(model,), telemetry=telemetry)


def _second(fleet: config.FleetConfig, folder: Path) -> config.FleetConfig:
    """Return what a second router of *fleet* needs of its own: addresses and a state."""
    replace = msgspec.structs.replace
    state = folder / "second"
    state.mkdir()
    return replace(
        fleet,
        fleet=replace(fleet.fleet, state_dir=str(state)),
        router=replace(fleet.router, listen=free_address(), metrics=free_address()),
    )


async def _serves(address: str) -> bool:
    return await health(address, "", Server(), 1.0) == SERVING


def main() -> None:
    """Compare, for each interval between reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=14.0)
    parser.add_argument("--intervals", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--seed", type=int, default=7)
    its = parser.parse_args()
    for interval_s in its.intervals:
        with tempfile.TemporaryDirectory() as place:
            found = asyncio.run(
                compare(
                    Path(place),
                    interval_s=interval_s,
                    seconds=its.seconds,
                    rate=its.rate,
                    seed=its.seed,
                )
            )
        for name, its_figures in found.items():
            told = {"reports_every_s": interval_s, "routers": name}
            print(json.dumps(told | msgspec.to_builtins(its_figures)))


if __name__ == "__main__":
    main()
