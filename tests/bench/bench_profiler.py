"""How long a profile takes: `python -m tests.bench.bench_profiler [--json]`.

The real encoder, one call at a time, texts of 12, 128 and 512 tokens. "grpc" is the whole call
through a server and a channel in this process; "inside" is the same work without gRPC. "cold"
texts were never seen, "cached" ones were. CPU time is the whole process's, both ends of the call.
The window is 512 tokens wide, so that nothing is cut; "head and tail" is the default window.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from zeta.embedding.v1.embedding_service_pb2 import ProfileRequest
from zeta.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceStub

from services.embedding.__main__ import serving_encoder
from services.embedding.batcher import Batcher
from services.embedding.encoder import OnnxEncoder, load
from services.embedding.heads import head_for
from services.embedding.profiler import Profiler
from services.kit import log
from services.kit.channel import open_channel
from services.kit.config import Embedding, EmbeddingReplica, Server

TOKENS = (12, 128, 512)
WORDS = "sort the list of prime numbers and explain how it was done in plain words".split()  # noqa: SIM905 - readable
Profile = Callable[[str], Awaitable[object]]
Figures = dict[str, dict[str, float]]


def text_of(tokens: int, number: int) -> str:
    """Return a text of about *tokens* tokens, unlike that of any other *number*."""
    rng = np.random.default_rng(number)
    return " ".join(rng.choice(WORDS, size=tokens - 2))


async def timed(profile: Profile, texts: list[str]) -> dict[str, float]:
    """Profile *texts* one after another; return quantiles and the mean CPU time."""
    taken_s, cpu_start_s = [], process_time()
    for text in texts:
        start = perf_counter()
        await profile(text)
        taken_s.append(perf_counter() - start)
    quantiles = {f"p{q}_ms": round(float(np.percentile(taken_s, q)) * 1e3, 3) for q in (50, 99)}
    return {**quantiles, "cpu_ms": round((process_time() - cpu_start_s) / len(texts) * 1e3, 3)}


async def figures_of(name: str, profile: Profile, calls: int) -> Figures:
    """Measure cold and cached texts of every length."""
    found: Figures = {}
    for tokens in TOKENS:
        texts = [text_of(tokens, i) for i in range(calls)]
        found[f"{name}, {tokens} tokens, cold"] = await timed(profile, texts)
        found[f"{name}, {tokens} tokens, cached"] = await timed(profile, [texts[-1]] * calls)
    return found


async def inside(encoder: OnnxEncoder, calls: int) -> Figures:
    """Measure without gRPC."""
    with Batcher(encoder, max_batch=16) as batcher:
        width = len((await batcher.encode(["warm"], urgent=True))[0].vector)
        _, head = head_for(encoder.sha256, width)
        profiler = Profiler(batcher, head, cache_entries=10_000)
        return await figures_of("inside", lambda text: profiler.profile([text]), calls)


async def through_grpc(name: str, encoder: OnnxEncoder, settings: Embedding, calls: int) -> Figures:
    """Measure whole calls, and sixteen callers at once."""
    replica = EmbeddingReplica(listen="127.0.0.1:0")
    async with (
        serving_encoder(encoder, settings, replica, Server(drain_grace_s=0)) as server,
        open_channel(server.address, Server()) as channel,
    ):
        stub = EmbeddingServiceStub(channel)

        async def profile(text: str) -> object:
            return await stub.Profile(ProfileRequest(texts=[text]))

        found = await figures_of(name, profile, calls)
        start = perf_counter()
        await asyncio.gather(
            *(
                timed(profile, [f"{i} {k} {text_of(12, k)}" for k in range(calls)])
                for i in range(16)
            )
        )
        per_s = 16 * calls / (perf_counter() - start)
        return {**found, f"{name}, 12 tokens, cold, 16 callers": {"per_s": round(per_s, 1)}}


async def measure(calls: int) -> Figures:
    """Measure everything."""
    wide = Embedding(max_tokens=512, cache_entries=10_000)
    with tempfile.TemporaryDirectory() as folder:
        encoder, narrow = load(wide, Path(folder)), load(Embedding(), Path(folder))
        return {
            **await inside(encoder, calls),
            **await through_grpc("grpc", encoder, wide, calls),
            **await through_grpc("grpc, head and tail", narrow, Embedding(), calls),
        }


def main() -> None:
    """Print the figures, as JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_profiler")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--calls", type=int, default=100, help="per measurement")
    arguments = parser.parse_args()
    log.configure("bench", "warning")
    figures = asyncio.run(measure(arguments.calls))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, values in figures.items():
        print(f"{name:50}" + "".join(f"{key} {value:9.2f}  " for key, value in values.items()))


if __name__ == "__main__":
    main()
