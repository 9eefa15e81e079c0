"""Two workers of one router, each asked through its own socket."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.router.v1 import router_service_pb2 as router_pb
from zeta.router.v1 import router_service_pb2_grpc as router_grpc

from router_svc.app import running
from router_svc.workers import Worker
from services.kit.config import Policy, Router
from services.kit.errors import UnknownDecisionError
from services.kit.rpc import zeta_error
from tests.contract.router_fakes import (
    FakeModel,
    asking,
    config_of,
    read,
    saying,
    served,
    until,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One worker, through its own socket."""

    inference: "inference_grpc.InferenceServiceAsyncStub"
    router: "router_grpc.RouterServiceAsyncStub"


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def two(folder: Path) -> AsyncGenerator[tuple[Asked, Asked, str], None]:
    """Run two workers before a fake model; the last is the address that they share."""
    async with AsyncExitStack() as stack:
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="zeta-")))
        model = await stack.enter_async_context(served(FakeModel("only", [saying("four")] * 9)))
        listen = f"127.0.0.1:{free_port()}"
        settings = Router(listen=listen, workers=2, policies={"balanced": Policy()})
        config = config_of(folder, [("only", [model.address])], router=settings)
        found = []
        for number in range(2):
            worker = Worker(number=number, count=2, folder=sockets)
            await stack.enter_async_context(running(config, seed=number, worker=worker))
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(worker.address(number))
            )
            asked = Asked(
                inference=inference_grpc.InferenceServiceStub(channel),
                router=router_grpc.RouterServiceStub(channel),
            )
            await until(partial(answers, asked))
            found.append(asked)
        yield found[0], found[1], listen


async def answers(asked: Asked) -> bool:
    """Whether that worker has found the model."""
    try:
        await read(asked.inference.Generate(asking()))
    except grpc.aio.AioRpcError:
        return False
    return True


async def outcomes(asked: Asked) -> float:
    """How much feedback is behind what is believed."""
    said = await asked.router.GetPolicy(router_pb.GetPolicyRequest())
    return sum(belief.outcomes for belief in said.beliefs)


async def test_feedback_reaches_the_one_that_learns(tmp_path: Path) -> None:
    """Through either, about either's decisions, and counts once."""
    async with two(tmp_path) as (first, second, _):
        for asked, other in ((first, second), (second, first), (second, second)):
            started, _, _ = await read(asked.inference.Generate(asking()))
            before = await outcomes(first)
            verdict = router_pb.SubmitFeedbackRequest(decision_id=started.decision_id, score=1.0)
            assert (await other.router.SubmitFeedback(verdict)).counted
            assert not (await asked.router.SubmitFeedback(verdict)).counted
            assert await outcomes(first) == pytest.approx(before + 1.0, abs=0.1)
            assert await outcomes(second) == await outcomes(first)
        unknown = router_pb.SubmitFeedbackRequest(decision_id="nobody's", score=1.0)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await second.router.SubmitFeedback(unknown)
        assert isinstance(zeta_error(refused.value), UnknownDecisionError)


async def test_an_answer_goes_on_where_it_began(tmp_path: Path) -> None:
    """Whoever the caller comes back to; nobody else's answers are found."""
    async with two(tmp_path) as (first, second, _):
        for asked, other in ((first, second), (second, first)):
            started, _, end = await read(asked.inference.Generate(asking()))
            made = started.decision_id
            again = inference_pb.GenerateRequest(resume=inference_pb.Resume(decision_id=made))
            same, _, last = await read(other.inference.Generate(again))
            assert same.decision_id == made
            assert last == end
            strange = inference_pb.Resume(decision_id=f"nobody's-{made[-2:]}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read(other.inference.Generate(inference_pb.GenerateRequest(resume=strange)))
            assert isinstance(zeta_error(refused.value), UnknownDecisionError)


async def test_a_policy_is_in_force_everywhere(tmp_path: Path) -> None:
    """Soon after it was given to either."""
    async with two(tmp_path) as (first, second, listen):
        policy = router_pb.Policy(name="late", latency_weight_per_s=0.5, deadline_confidence=0.9)
        policy.max_calls = 1
        await second.router.UpdatePolicy(router_pb.UpdatePolicyRequest(policy=policy))
        request = asking()
        request.preference.policy = "late"
        for asked in (first, second):
            await until(partial(_succeeds, asked, request))
        async with grpc.aio.insecure_channel(listen) as channel:
            shared = inference_grpc.InferenceServiceStub(channel)
            assert (await read(shared.Generate(request)))[1] == "four"


async def _succeeds(asked: Asked, request: inference_pb.GenerateRequest) -> bool:
    try:
        await read(asked.inference.Generate(request))
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_decisions_are_watched_through_either(tmp_path: Path) -> None:
    """Those of the first."""
    async with two(tmp_path) as (first, second, _):
        watching = second.router.WatchDecisions(router_pb.WatchDecisionsRequest())
        await watching.initial_metadata()
        started, _, _ = await read(first.inference.Generate(asking()))
        seen = await asyncio.wait_for(watching.read(), 10.0)
        assert isinstance(seen, router_pb.WatchDecisionsResponse)
        assert seen.decision.id == started.decision_id
        watching.cancel()
