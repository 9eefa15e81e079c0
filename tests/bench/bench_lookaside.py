"""A ticket beside the proxy: time to the first token, time of the answer, the router's work.

python -m tests.bench.bench_lookaside [--json] [--seconds S]

The instant model of `bench_router`, which checks tickets here, and the real router, each a process
of its own on a Unix socket. One client library asks on every path: the model itself, through the
router, and with a ticket (`Route`, the stream, `ReportOutcome`). The paths are measured in turns.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import grpc
import numpy as np
import psutil
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from services.kit import config as kit_config
from services.kit import log
from services.kit.config import (
    Embedding,
    EmbeddingReplica,
    Fleet,
    FleetConfig,
    Model,
    Policy,
    Replica,
    Router,
    Server,
    Telemetry,
    Tickets,
)
from services.kit.errors import ZetaError
from services.kit.rpc import Context
from services.kit.server import serving
from services.kit.tickets import Keyring
from services.model.gate import Gate
from tests.bench.bench_router import INFERENCE, Instant, _add
from zeta_client import AsyncClient

DELTAS: Final = (1, 64, 256)
CALLERS: Final = (1, 16)
PATHS: Final = ("direct", "router", "ticket")
ROUNDS: Final = 5


class Gated(Instant):
    """Checks a ticket where there is one."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def Generate(  # noqa: N802 - named by the contract
        self, request: inference_pb.GenerateRequest, _context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        """Answer."""
        self._gate.generate(request, _context)
        async for event in super().Generate(request, _context):
            yield event


async def serve_model(listen: str, keys: str) -> None:
    """Run the instant model."""
    add: Any = partial(_add, Gated(Gate("instant-0", Keyring(Path(keys)))))
    async with serving(listen, Server(), {INFERENCE: add}) as server:
        await server.set_serving()
        await server.stopped.wait()


async def call(zeta: AsyncClient, deltas: int, *, ticket: bool) -> tuple[float, float]:
    """Read one whole answer; return the seconds to its first token and to its end."""
    request = inference_pb.GenerateRequest(prompt="What is 2 + 2?", max_tokens=deltas)
    began, first_s, events = perf_counter(), 0.0, []
    async for event in zeta.generate(request, lookaside=ticket):
        events.append(event.WhichOneof("event"))
        if not first_s and event.HasField("delta"):
            first_s = perf_counter() - began
    if events != ["started", *["delta"] * deltas, "finished"]:
        raise RuntimeError(f"{len(events)} events instead of {deltas + 2}, or others")
    return first_s, perf_counter() - began


async def load(
    zeta: AsyncClient, deltas: int, callers: int, seconds: float, *, ticket: bool
) -> list[tuple[float, float]]:
    """Call for *seconds* from so many callers."""
    found: list[tuple[float, float]] = []
    ends = perf_counter() + seconds

    async def caller() -> None:
        while perf_counter() < ends:
            found.append(await call(zeta, deltas, ticket=ticket))

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return found


async def measure(targets: dict[str, str], router: int, seconds: float) -> list[dict[str, Any]]:
    """Measure every path in turns; *router* is the router's process."""
    process, rows = psutil.Process(router), []
    async with AsyncClient(targets["direct"]) as model, AsyncClient(targets["router"]) as zeta:
        clients = {"direct": model, "router": zeta, "ticket": zeta}
        await until_ready(zeta)
        for deltas in DELTAS:
            for callers in CALLERS:
                found: dict[str, list[tuple[float, float]]] = {path: [] for path in PATHS}
                cpu_s = dict.fromkeys(PATHS, 0.0)
                for _ in range(ROUNDS):
                    for path in PATHS:
                        before = sum(process.cpu_times()[:2])
                        found[path] += await load(
                            clients[path],
                            deltas,
                            callers,
                            seconds / ROUNDS,
                            ticket=path == "ticket",
                        )
                        cpu_s[path] += sum(process.cpu_times()[:2]) - before
                for path in PATHS:
                    first, total = np.percentile(np.array(found[path]) * 1e3, 50, axis=0)
                    rows.append(
                        {
                            "deltas": deltas,
                            "callers": callers,
                            "path": path,
                            "first_p50_ms": float(first),
                            "total_p50_ms": float(total),
                            "per_s": len(found[path]) / seconds,
                            "router_cpu_ms": 1e3 * cpu_s[path] / len(found[path]),
                        }
                    )
    return rows


async def until_ready(zeta: AsyncClient) -> None:
    """Wait until both paths answer."""
    async with asyncio.timeout(30.0):
        while True:
            try:
                await call(zeta, 1, ticket=True)
            except (ZetaError, RuntimeError, grpc.aio.AioRpcError):
                await asyncio.sleep(0.05)
            else:
                return


def run(seconds: float) -> list[dict[str, Any]]:
    """Start the processes, measure, and stop them."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        at = {name: f"unix:{folder}/{name}.sock" for name in ("direct", "router")}
        keys = Path(folder, "keys")
        keys.write_text(f"one {b64encode(bytes(32)).decode()}\n")
        config = FleetConfig(
            fleet=Fleet(state_dir=folder, log_level="error"),
            telemetry=Telemetry(listen=f"unix:{folder}/none.sock"),
            embedding=Embedding(replicas=(EmbeddingReplica(listen=f"unix:{folder}/no.sock"),)),
            tickets=Tickets(keys=str(keys)),
            router=Router(listen=at["router"], policies={"balanced": Policy()}),
            models=(Model(name="instant", dir=".", replicas=(Replica(listen=at["direct"]),)),),
        )
        path = Path(folder, "fleet.toml")
        path.write_bytes(kit_config.dump(config))
        own = [sys.executable, "-m", "tests.bench.bench_lookaside"]
        processes = []
        for command in (
            [*own, "--serve-model", at["direct"], str(keys)],
            [sys.executable, "-m", "router_svc", "--config", str(path)],
        ):
            processes.append(stack.enter_context(subprocess.Popen(command)))
            stack.callback(processes[-1].send_signal, signal.SIGTERM)
        return asyncio.run(measure(at, processes[-1].pid, seconds))


def main() -> None:
    """Measure, or play the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0, help="per path and shape")
    parser.add_argument("--serve-model", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    log.configure("bench", "error")
    if options.serve_model:
        return asyncio.run(serve_model(*options.serve_model))
    rows = run(options.seconds)
    if options.json:
        print(json.dumps({"lookaside": rows}))
        return None
    print(
        f"{'deltas':>6} {'callers':>7} {'path':<7} {'first':>8} {'total':>8} {'/s':>7} {'cpu':>7}"
    )
    for row in rows:
        print(
            f"{row['deltas']:>6} {row['callers']:>7} {row['path']:<7} {row['first_p50_ms']:>8.2f} "
            f"{row['total_p50_ms']:>8.2f} {row['per_s']:>7.0f} {row['router_cpu_ms']:>7.2f}"
        )
    return None


if __name__ == "__main__":
    main()
