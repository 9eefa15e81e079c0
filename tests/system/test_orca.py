"""Clients that balance over replicas by themselves, by gRPC's own policy and our reports."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
from zeta.inference.v1.inference_service_pb2 import GenerateRequest, SamplingParams
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit import config
from tests.system.calls import PROMPT
from tests.system.conftest import PAIRED as MODEL
from tests.system.fleet import Fleet, eventually
from tests.system.test_clients import NODE, node_or_reason

BUSY, IDLE = f"{MODEL}-0", f"{MODEL}-1"
CALLS: Final = 20
WITHIN_S: Final = 60.0


async def test_python_leaves_the_busy_replica(pair: Fleet) -> None:
    """With one replica busy, weighted round robin sends most of its calls to the other."""
    policy = {"weighted_round_robin": {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s"}}
    options = [("grpc.service_config", json.dumps({"loadBalancingConfig": [policy]}))]
    async with busy(pair), grpc.aio.insecure_channel(f"ipv4:{','.join(both(pair))}", options) as ch:
        stub = InferenceServiceStub(ch)

        async def shifted() -> bool:
            hits: Counter[str] = Counter()
            for _ in range(CALLS):
                async for event in stub.Generate(short(4)):
                    hits[event.started.replica] += event.HasField("started")
            return hits[IDLE] >= 2 * hits[BUSY]

        await eventually(shifted, WITHIN_S, "two of three calls go to the idle replica")


async def test_node_leaves_the_busy_replica(pair: Fleet) -> None:
    """Node has a weighted round robin of its own, reads the same reports and does the same."""
    node = node_or_reason()
    async with busy(pair):
        process = await asyncio.create_subprocess_exec(
            node, NODE / "balance.mjs", ",".join(both(pair)), PROMPT, "200", stdout=-1, stderr=-1
        )
        assert process.stdout
        rounds = []

        async def shifted() -> bool:
            line = await process.stdout.readline()  # type: ignore[union-attr] # asserted above
            assert line, (await process.stderr.read()).decode()  # type: ignore[union-attr]
            rounds.append(json.loads(line))
            hits = rounds[-1]["by_replica"]
            return bool(hits.get(IDLE, 0) >= 2 * hits.get(BUSY, 0))

        try:
            await eventually(shifted, WITHIN_S, "two of three calls go to the idle replica")
        finally:
            process.kill()
            await process.communicate()

    report = rounds[-1]["report"]
    assert report["rps_fractional"] > 0
    assert report["application_utilization"] > 0
    assert 0 < report["mem_utilization"] < 1
    assert 0 <= report["utilization"]["kv_cache"] <= 1
    assert report["named_metrics"]["queue_depth"] >= 0


def both(fleet: Fleet) -> list[str]:
    """Return where the two replicas serve."""
    return [replica.listen for replica in config.model_named(fleet.config, MODEL).replicas]


def short(max_tokens: int) -> GenerateRequest:
    """Ask for a few tokens."""
    return GenerateRequest(
        prompt=PROMPT, sampling=SamplingParams(temperature=0.0), max_tokens=max_tokens
    )


@asynccontextmanager
async def busy(fleet: Fleet) -> AsyncIterator[None]:
    """Keep the first replica busy with twelve streams, by calling it directly."""
    async with fleet.channel(both(fleet)[0]) as channel:
        stub = InferenceServiceStub(channel)

        async def on_and_on() -> None:
            while True:
                async for _ in stub.Generate(short(16)):
                    pass

        tasks = [asyncio.create_task(on_and_on()) for _ in range(12)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
