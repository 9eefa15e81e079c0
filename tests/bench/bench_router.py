"""What the router adds to a call: direct, through a bare proxy, and through the router.

python -m tests.bench.bench_router [--json] [--seconds S] [--workers N]

Every server is a process of its own on a Unix socket: an instant model that answers with as many
deltas as `max_tokens` says, a bare `grpc.aio` proxy that forwards bytes, and the real router. The
paths are measured in turns, round by round, so that whatever else the machine does hits them alike.
On a *line* all callers share a stream, as answers of `AsyncClient` do; *added* is above the direct
call that is one of its own, on every path.
*cpu* is processor time of the process in between (of the model itself, where there is none): a busy
machine stretches it less than the clock. With `--workers`, the router is so many processes behind
one TCP port, and every caller has a connection of its own, on every path.
"""

import argparse
import asyncio
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeAlias

import grpc
import numpy as np
import psutil
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc

from services.kit import config as kit_config
from services.kit import log
from services.kit.aio import cancelled
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
)
from services.kit.mux.client import Line
from services.kit.rpc import Context
from services.kit.server import serving

INFERENCE: Final = "zeta.inference.v1.InferenceService"
GENERATE: Final = f"/{INFERENCE}/Generate"
DELTAS: Final = {"unary-sized": 1, "64 deltas": 64}
CALLERS: Final = (1, 16)
ROUNDS: Final = 5
PATHS: Final = {
    "direct": ("direct", False),
    "proxy": ("proxy", False),
    "router": ("router", False),
    "direct line": ("direct", True),
    "router line": ("router", True),
}
"""The server that is asked, and whether the calls share a stream."""


class Instant:
    """A model that answers at once."""

    async def Generate(  # noqa: N802 - named by the contract
        self, request: inference_pb.GenerateRequest, _context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        """Answer with `max_tokens` deltas."""
        started = inference_pb.Started(model="instant", replica="instant-0", prompt_tokens=8)
        yield inference_pb.GenerateResponse(started=started)
        for seq in range(1, request.max_tokens + 1):
            delta = inference_pb.Delta(seq=seq, text="word ", token_ids=[seq])
            yield inference_pb.GenerateResponse(delta=delta)
        usage = inference_pb.Usage(prompt_tokens=8, completion_tokens=request.max_tokens)
        finished = inference_pb.Finished(
            reason=inference_pb.FINISH_REASON_STOP, usage=usage, mean_logprob=-0.1
        )
        yield inference_pb.GenerateResponse(finished=finished)

    async def ListModels(  # noqa: N802 - named by the contract
        self, _request: inference_pb.ListModelsRequest, _context: Context
    ) -> inference_pb.ListModelsResponse:
        """Introduce itself."""
        info = inference_pb.ModelInfo(name="instant", context_tokens=4096, default_max_tokens=64)
        return inference_pb.ListModelsResponse(models=[info])


def _add(model: Instant, server: grpc.aio.Server) -> None:
    """Add the two methods that are asked for, without the interface's others."""
    handlers: dict[str, Any] = {
        "Generate": grpc.unary_stream_rpc_method_handler(
            model.Generate,
            inference_pb.GenerateRequest.FromString,
            inference_pb.GenerateResponse.SerializeToString,
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            model.ListModels,
            inference_pb.ListModelsRequest.FromString,
            inference_pb.ListModelsResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(INFERENCE, handlers),))


async def serve_model(listen: str) -> None:
    """Run the instant model."""
    add = partial(_add, Instant())
    async with serving(listen, Server(), {INFERENCE: add}) as server:
        await server.set_serving()
        await server.stopped.wait()


async def serve_proxy(listen: str, target: str) -> None:
    """Forward Generate, byte for byte, with nothing around it."""
    channel = grpc.aio.insecure_channel(target)
    generate: Any = channel.unary_stream(GENERATE)

    async def forward(request: bytes, _context: Context) -> AsyncIterator[bytes]:
        async for response in generate(request):
            yield response

    server = grpc.aio.server()
    handler: Any = grpc.unary_stream_rpc_method_handler(forward)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(INFERENCE, {"Generate": handler}),)
    )
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


Ask: TypeAlias = Callable[[inference_pb.GenerateRequest], AsyncIterable[Any]]


@asynccontextmanager
async def asking(target: str, *, line: bool) -> AsyncIterator[Ask]:
    """Open a connection of its own: for a call per answer, or with a *line* for all of them."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, own) as channel:
        if not line:
            yield inference_grpc.InferenceServiceStub(channel).Generate
            return
        shared = Line(channel, target)
        keeping = asyncio.create_task(shared.keep())
        await shared.settled(5.0)
        yield lambda request: shared.call(request.SerializeToString(), None, ())
        await cancelled(keeping)


async def call(ask: Ask, deltas: int) -> None:
    """Read one whole answer, and check that it is whole."""
    request = inference_pb.GenerateRequest(prompt="What is 2 + 2?", max_tokens=deltas)
    tokens, ended = 0, False
    async for event in ask(request):
        # The router may join deltas, so that it is the tokens that count.
        tokens += len(event.delta.token_ids)
        ended = event.HasField("finished")
    if tokens != deltas or not ended:
        raise RuntimeError(f"{tokens} tokens instead of {deltas}, ended: {ended}")


async def load(
    target: str, deltas: int, callers: int, seconds: float, *, connections: int, line: bool
) -> tuple[list[float], float]:
    """Call for *seconds* from so many callers; return latencies and calls per second."""
    latencies: list[float] = []
    async with AsyncExitStack() as stack:
        asks = []
        for _ in range(connections):
            asks.append(await stack.enter_async_context(asking(target, line=line)))
            await call(asks[-1], deltas)
        began = perf_counter()

        async def caller(ask: Ask) -> None:
            while (at := perf_counter()) < began + seconds:
                await call(ask, deltas)
                latencies.append(perf_counter() - at)

        async with asyncio.TaskGroup() as group:
            for i in range(callers):
                group.create_task(caller(asks[i % connections]))
        return latencies, len(latencies) / (perf_counter() - began)


def cpu_s(process: psutil.Process) -> float:
    """Processor time that *process* and those it started have taken so far."""
    return sum(
        each.cpu_times().user + each.cpu_times().system
        for each in (process, *process.children(recursive=True))
    )


async def ready(target: str) -> None:
    """Wait until *target* answers."""
    async with asyncio.timeout(30.0), asking(target, line=False) as ask:
        while True:
            try:
                await call(ask, 1)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                return


async def measure(
    targets: dict[str, str],
    processes: dict[str, psutil.Process],
    seconds: float,
    *,
    each_own: bool,
) -> list[dict[str, Any]]:
    """Measure every path in turns."""
    rows = []
    for target in targets.values():
        await ready(target)
    for shape, deltas in DELTAS.items():
        for callers in CALLERS:
            latencies: dict[str, list[float]] = {name: [] for name in PATHS}
            rates: dict[str, list[float]] = {name: [] for name in PATHS}
            cpu: dict[str, float] = dict.fromkeys(PATHS, 0.0)
            for _ in range(ROUNDS):
                for name, (server, line) in PATHS.items():
                    before_s, each_s = cpu_s(processes[server]), seconds / ROUNDS
                    found, rate = await load(
                        targets[server],
                        deltas,
                        callers,
                        each_s,
                        connections=callers if each_own else 1,
                        line=line,
                    )
                    cpu[name] += cpu_s(processes[server]) - before_s
                    latencies[name] += found
                    rates[name].append(rate)
            for name in PATHS:
                p50, p99 = np.percentile(latencies[name], [50, 99]) * 1e3
                base50, base99 = np.percentile(latencies["direct"], [50, 99]) * 1e3
                rows.append(
                    {
                        "shape": shape,
                        "callers": callers,
                        "path": name,
                        "p50_ms": float(p50),
                        "p99_ms": float(p99),
                        "added_p50_ms": float(p50 - base50),
                        "added_p99_ms": float(p99 - base99),
                        "per_s": float(np.median(rates[name])),
                        "cpu_ms": 1e3 * cpu[name] / len(latencies[name]),
                    }
                )
    return rows


def run(seconds: float, workers: int) -> list[dict[str, Any]]:
    """Start the processes, measure, and stop them."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        at = {name: f"unix:{folder}/{name}.sock" for name in ("direct", "proxy", "router")}
        if workers > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                at["router"] = f"127.0.0.1:{free.getsockname()[1]}"
        config = FleetConfig(
            fleet=Fleet(state_dir=folder, log_level="error"),
            telemetry=Telemetry(listen=f"unix:{folder}/none.sock"),
            embedding=Embedding(replicas=(EmbeddingReplica(listen=f"unix:{folder}/no.sock"),)),
            router=Router(listen=at["router"], workers=workers, policies={"balanced": Policy()}),
            models=(Model(name="instant", dir=".", replicas=(Replica(listen=at["direct"]),)),),
        )
        path = Path(folder, "fleet.toml")
        path.write_bytes(kit_config.dump(config))
        own = [sys.executable, "-m", "tests.bench.bench_router"]
        processes = {}
        for name, command in (
            ("direct", [*own, "--serve-model", at["direct"]]),
            ("proxy", [*own, "--serve-proxy", at["proxy"], at["direct"]]),
            ("router", [sys.executable, "-m", "router_svc", "--config", str(path)]),
        ):
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.send_signal, signal.SIGTERM)
            processes[name] = psutil.Process(process.pid)
        return asyncio.run(measure(at, processes, seconds, each_own=workers > 1))


def main() -> None:
    """Measure, or play one of the servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0, help="per path and shape")
    parser.add_argument("--workers", type=int, default=1, help="of the router")
    parser.add_argument("--serve-model", help=argparse.SUPPRESS)
    parser.add_argument("--serve-proxy", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    log.configure("bench", "error")
    if options.serve_model:
        return asyncio.run(serve_model(options.serve_model))
    if options.serve_proxy:
        return asyncio.run(serve_proxy(*options.serve_proxy))
    rows = run(options.seconds, options.workers)
    if options.json:
        print(json.dumps({"router": rows}))
        return None
    print(
        f"{'shape':<12} {'callers':>7} {'path':<11} {'p50':>8} {'p99':>8} {'added':>8} {'/s':>8} "
        f"{'cpu':>8}"
    )
    for row in rows:
        print(
            f"{row['shape']:<12} {row['callers']:>7} {row['path']:<11} {row['p50_ms']:>8.2f} "
            f"{row['p99_ms']:>8.2f} {row['added_p50_ms']:>8.2f} {row['per_s']:>8.0f} "
            f"{row['cpu_ms']:>8.3f}"
        )
    return None


if __name__ == "__main__":
    main()
