"""What sessions save: `python -m tests.bench.bench_sessions`.

Conversations of six turns with two replicas of the pocket coder, four at a time: sent where their
beginning is cached, and in turn (`round_robin`) for comparison.
"""

import asyncio
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import grpc
import msgspec
import numpy as np
from numpy.typing import NDArray
from zeta.inference.v1.inference_service_pb2 import (
    Conversation,
    GenerateRequest,
    Message,
    Role,
    SamplingParams,
)
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.config import FleetConfig, Policy, Replica
from tests.system.fleet import running

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

MODEL, TURNS, ROUNDS, AT_ONCE = "coder-7b", 6, 8, 4


def main() -> None:
    """Print share of cached tokens and time to first token of later turns, both ways."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), edited) as fleet:
        print(f"{'':18}{'cached':>8}{'ttft p50 ms':>13}{'p99 ms':>9}")
        for policy in ("balanced", "in_turn", "balanced", "in_turn"):
            share, ttft_s = asyncio.run(measured(fleet.router, policy))
            p50, p99 = np.quantile(ttft_s, [0.5, 0.99]) * 1e3
            print(f"{policy:18}{share:8.2f}{p50:13.1f}{p99:9.1f}")


def edited(config: FleetConfig) -> FleetConfig:
    """Give the coder a second replica, and the router a policy that ignores caches."""
    replace = msgspec.structs.replace
    policies = {**config.router.policies, "in_turn": Policy(balancer="round_robin")}
    second = Replica(listen="127.0.0.1:7099")
    return replace(
        config,
        router=replace(config.router, policies=policies),
        models=tuple(
            replace(m, replicas=(*m.replicas, second)) if m.name == MODEL else m
            for m in config.models
        ),
    )


async def measured(router: str, policy: str) -> tuple[float, list[float]]:
    """Return the share of prompt tokens that was cached, and times to first token in seconds."""
    tokens, ttft_s = np.zeros(2), list[float]()
    async with grpc.aio.insecure_channel(router) as channel:
        talk = partial(_talk, InferenceServiceStub(channel), policy, tokens, ttft_s)
        for round_number in range(ROUNDS):
            await asyncio.gather(*(talk(f"{policy} {round_number}-{n}") for n in range(AT_ONCE)))
    return float(tokens[0] / tokens[1]), ttft_s


async def _talk(
    stub: "InferenceServiceAsyncStub",
    policy: str,
    tokens: NDArray[np.float64],
    ttft_s: list[float],
    name: str,
) -> None:
    said = [Message(role=Role.ROLE_SYSTEM, content=f"This is {name}; answer in one word. " * 8)]
    for turn in range(TURNS):
        said.append(Message(role=Role.ROLE_USER, content=f"What is {turn} + {turn + 3}?"))
        request = GenerateRequest(
            model=MODEL,
            messages=Conversation(messages=said),
            sampling=SamplingParams(temperature=0.0),
            max_tokens=8,
            session_id=name,
        )
        request.preference.policy = policy
        began_s, text = perf_counter(), []
        async for event in stub.Generate(request):
            kind = event.WhichOneof("event")
            if kind == "started" and turn:
                # It waits for the first token.
                ttft_s.append(perf_counter() - began_s)
            text.append(event.delta.text)
            if kind == "finished" and turn:
                usage = event.finished.usage
                tokens += (usage.cached_prompt_tokens, usage.prompt_tokens)
        said.append(Message(role=Role.ROLE_ASSISTANT, content="".join(text)))


if __name__ == "__main__":
    main()
