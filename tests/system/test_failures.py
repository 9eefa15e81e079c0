"""What dies is missed by as few callers as possible, and comes back."""

import asyncio
import contextlib
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING

import grpc
import msgspec
import psutil
import pytest
from zeta.embedding.v1.embedding_service_pb2 import EmbedRequest
from zeta.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from zeta.inference.v1.decision_pb2 import ProfileSource
from zeta.inference.v1.inference_service_pb2 import (
    TaskKind,
)
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.model.v1.model_control_service_pb2 import DrainRequest, GetStateRequest
from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceStub
from zeta.router.v1.router_service_pb2 import (
    Belief,
    GetPolicyRequest,
    SubmitFeedbackRequest,
)
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub
from zeta.telemetry.v1.telemetry_service_pb2 import ReplicaHealth, WatchRequest
from zeta.telemetry.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from services.kit.config import FleetConfig, Pace, replica_name
from services.kit.probe import SERVING, health
from services.kit.rpc import zeta_error
from tests.system.calls import TIMEOUT_S, Reader, answer, endless, question, refusal
from tests.system.fleet import Fleet, eventually, running

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub
    from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceAsyncStub
    from zeta.router.v1.router_service_pb2_grpc import RouterServiceAsyncStub

VICTIM = "coder-7b"


def unhurried(config: FleetConfig) -> FleetConfig:
    """Have the victim take seconds for a long answer, so that it is caught in the middle."""
    models = tuple(
        msgspec.structs.replace(model, pace=Pace(step_s=0.003)) if model.name == VICTIM else model
        for model in config.models
    )
    return msgspec.structs.replace(config, models=models)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet to break; each test leaves it whole again."""
    with running(tmp_path_factory.mktemp("fragile"), unhurried) as up:
        yield up


@pytest.fixture
async def channel(fragile: Fleet) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the router of the fleet to break."""
    async with fragile.channel(fragile.router) as opened:
        yield opened


def kill(process: psutil.Process | None) -> int:
    assert process, "not running"
    process.kill()
    return int(process.pid)


async def serves(fleet: Fleet, address: str) -> bool:
    return await health(address, "", fleet.config.server, 1.0) == SERVING


async def watched(fleet: Fleet, replica: str, state: ReplicaHealth.ValueType) -> bool:
    """Whether telemetry believes *state* of *replica*."""
    async with fleet.channel(fleet.telemetry) as channel:
        call = TelemetryServiceStub(channel).Watch(WatchRequest(), timeout=5.0)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for message in call:
                known = {r.report.replica: r.health for r in message.snapshot.replicas}
                return known.get(replica) == state
    return False


async def test_a_model_killed_while_streams_run(fragile: Fleet, channel: grpc.aio.Channel) -> None:
    """Every one of a hundred ends well; who insists on the model waits for it to come back.

    Then the answer is to the letter what it would have been.
    """
    stub = InferenceServiceStub(channel)
    undisturbed = await answer(stub.Generate(endless(VICTIM), timeout=TIMEOUT_S))
    streams = [Reader(stub.Generate(endless(VICTIM), timeout=TIMEOUT_S)) for _ in range(12)]
    free = [Reader(stub.Generate(endless(max_tokens=64), timeout=TIMEOUT_S)) for _ in range(88)]
    reading = asyncio.gather(*(reader.read() for reader in (*streams, *free)))
    await asyncio.gather(*(reader.has_text.wait() for reader in streams))

    pid = kill(fragile.process("services.model", VICTIM))  # each has most of 900 tokens to go
    late = [answer(stub.Generate(question(f"{i} + 4 = ?"), timeout=TIMEOUT_S)) for i in range(16)]
    answers, _ = await asyncio.gather(asyncio.gather(*late), reading)

    assert {reader.end for reader in (*streams, *free)} == {"finished"}
    assert all(reader.handovers for reader in streams)
    assert {"".join(reader.text) for reader in streams} == {undisturbed.text}
    assert {reader.tokens for reader in streams} == {900}
    assert all(a.finished.reason for a in answers)
    address = fragile.model(VICTIM)
    await eventually(lambda: serves(fragile, address), 30.0, "the killed model serving again")
    again = fragile.process("services.model", VICTIM)
    assert again
    assert again.pid != pid
    await eventually(lambda: served_by(stub, VICTIM), 15.0, "the router using it again")


async def served_by(stub: "InferenceServiceAsyncStub", model: str) -> bool:
    try:
        got = await answer(stub.Generate(question(model=model), timeout=10.0))
    except grpc.aio.AioRpcError:
        return False
    return got.finished.model == model


async def test_streams_of_a_model_that_hangs_go_on(
    fragile: Fleet, channel: grpc.aio.Channel
) -> None:
    """Its connection lives and says nothing: after a while its calls are made anew."""
    stub = InferenceServiceStub(channel)
    undisturbed = await answer(stub.Generate(endless(VICTIM), timeout=TIMEOUT_S))
    streams = [Reader(stub.Generate(endless(VICTIM), timeout=TIMEOUT_S)) for _ in range(12)]
    reading = asyncio.gather(*(reader.read() for reader in streams))
    await asyncio.gather(*(reader.has_text.wait() for reader in streams))
    victim = fragile.process("services.model", VICTIM)
    assert victim
    before = given_up(fragile)
    victim.suspend()
    try:
        await eventually(partial(gave_up, fragile, before + 12), 30.0, "its calls given up")
    finally:
        victim.resume()
    await reading
    assert {reader.end for reader in streams} == {"finished"}
    assert [reader.handovers for reader in streams] == [[VICTIM]] * 12
    assert {"".join(reader.text) for reader in streams} == {undisturbed.text}


def given_up(fleet: Fleet) -> float:
    """Return how many of the victim's calls failed, by the router's own count."""
    with urllib.request.urlopen(
        f"http://{fleet.config.router.metrics}/metrics", timeout=10
    ) as page:
        lines = page.read().decode().splitlines()
    own = f'zeta_router_failures_total{{reason="NO_REPLICA",replica="{replica_name(VICTIM, 0)}"}} '
    return sum(float(line.removeprefix(own)) for line in lines if line.startswith(own))


async def gave_up(fleet: Fleet, calls: float) -> bool:
    return await asyncio.to_thread(given_up, fleet) >= calls


async def test_no_replica_is_said_clearly(fragile: Fleet, channel: grpc.aio.Channel) -> None:
    """Soon after a model falls silent, requests for it are refused and told when to retry."""
    stub = InferenceServiceStub(channel)
    victim = fragile.process("services.model", VICTIM)
    assert victim
    victim.suspend()  # silent, so that nothing restarts it
    try:
        name, dead = replica_name(VICTIM, 0), ReplicaHealth.REPLICA_HEALTH_DEAD
        await eventually(partial(watched, fragile, name, dead), 15.0, "telemetry noticing")
        await eventually(partial(refused_for_now, stub), 10.0, "the router refusing")
    finally:
        victim.resume()
    await eventually(lambda: served_by(stub, VICTIM), 15.0, "the model back in use")


async def refused_for_now(stub: "InferenceServiceAsyncStub") -> bool:
    """Whether a request for the victim is refused as the contract says, and not left waiting."""
    try:
        await answer(stub.Generate(question(model=VICTIM), timeout=1.0))
    except grpc.aio.AioRpcError as failed:
        error = zeta_error(failed)
        return error.reason == "NO_REPLICA" and bool(error.retry_after_s)
    return False


async def test_a_drained_model_is_left_in_peace(fragile: Fleet, channel: grpc.aio.Channel) -> None:
    """Drain waits for running work and takes no more; the router serves others meanwhile."""
    stub = InferenceServiceStub(channel)
    async with fragile.channel(fragile.model(VICTIM)) as direct:
        own, control = InferenceServiceStub(direct), ModelControlServiceStub(direct)
        # A batch of long answers: busy for a second or more, however fast the machine is.
        calls = [answer(own.Generate(endless(), timeout=TIMEOUT_S)) for _ in range(12)]
        busy = asyncio.gather(*calls)
        await eventually(partial(are_running, control, 12), 10.0, "all requests running")
        drained = await control.Drain(DrainRequest(), timeout=TIMEOUT_S)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await answer(own.Generate(question(), timeout=10.0))
        others = await asyncio.gather(
            *(answer(stub.Generate(question(f"{i} + 6 = ?"), timeout=TIMEOUT_S)) for i in range(8))
        )

    assert {a.finished.usage.completion_tokens for a in await busy} == {900}
    assert 1 <= drained.finished <= 12
    assert drained.cut == 0
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refusal(failed).reason == "DRAINING"
    assert refusal(failed).retry_after_s
    assert VICTIM not in {a.finished.model for a in others}
    kill(fragile.process("services.model", VICTIM))
    await eventually(lambda: served_by(stub, VICTIM), 30.0, "the model back in use")


async def test_a_rolling_restart_loses_nothing(fragile: Fleet, channel: grpc.aio.Channel) -> None:
    """Each model in turn is drained and told to end, under load: what was accepted is answered.

    What runs there ends there or goes on elsewhere; who lets the router choose notices nothing.
    """
    stub, over = InferenceServiceStub(channel), asyncio.Event()

    async def keep_asking(caller: int) -> int:
        asked = 0
        while not over.is_set():
            prompt = f"What is {asked} + {caller}?"
            assert (await answer(stub.Generate(question(prompt), timeout=TIMEOUT_S))).text
            asked += 1
        return asked

    callers = [asyncio.create_task(keep_asking(i)) for i in range(3)]
    for model in (each.name for each in fragile.config.models):
        streams = [Reader(stub.Generate(endless(model), timeout=TIMEOUT_S)) for _ in range(4)]
        reading = asyncio.gather(*(reader.read() for reader in streams))
        await asyncio.gather(*(reader.has_text.wait() for reader in streams))
        old = fragile.process("services.model", model)
        assert old
        async with fragile.channel(fragile.model(model)) as direct:
            draining = ModelControlServiceStub(direct).Drain(DrainRequest(), timeout=TIMEOUT_S)
            old.terminate()
            with contextlib.suppress(grpc.aio.AioRpcError):
                await draining
        await reading
        assert [reader.end for reader in streams] == ["finished"] * 4
        assert {reader.tokens for reader in streams} == {900}
        await eventually(partial(gone, old), 30.0, "the old process gone")
        await eventually(partial(served_by, stub, model), 30.0, "the model back in use")
    over.set()
    assert all(asked > 0 for asked in await asyncio.gather(*callers))


async def are_running(control: "ModelControlServiceAsyncStub", count: int) -> bool:
    return (await control.GetState(GetStateRequest(), timeout=5.0)).state.running == count


async def test_telemetry_killed_and_back(fragile: Fleet, channel: grpc.aio.Channel) -> None:
    """Without telemetry requests are still served; when it is back, so are the reports."""
    stub = InferenceServiceStub(channel)
    kill(fragile.process("telemetry_svc"))

    answers = await asyncio.gather(
        *(answer(stub.Generate(question(f"What is {i} + 3?"), timeout=TIMEOUT_S)) for i in range(8))
    )

    assert all(a.text for a in answers)
    await eventually(lambda: serves(fragile, fragile.telemetry), 30.0, "telemetry serving again")
    for model in fragile.config.models:
        name = replica_name(model.name, 0)
        reports = partial(watched, fragile, name, ReplicaHealth.REPLICA_HEALTH_SERVING)
        await eventually(reports, 15.0, f"{name} reporting again")


async def test_the_profiler_silent_and_back(fragile: Fleet, channel: grpc.aio.Channel) -> None:
    """A profiler that hangs costs its time box, not the request; killed, it comes back."""
    stub = InferenceServiceStub(channel)
    profiler = fragile.process("services.embedding")
    assert profiler
    profiler.suspend()
    explained = [question(f"What is {i} + 8?") for i in range(8)]
    for request in explained:
        request.preference.explain = True
    answers = await asyncio.gather(
        *(answer(stub.Generate(request, timeout=TIMEOUT_S)) for request in explained)
    )
    kill(profiler)

    sources = {a.finished.decision.profile.source for a in answers}
    assert sources == {ProfileSource.PROFILE_SOURCE_LEXICAL}
    await eventually(partial(embeds, channel), 30.0, "embeddings served again")


async def embeds(channel: grpc.aio.Channel) -> bool:
    try:
        got = await EmbeddingServiceStub(channel).Embed(EmbedRequest(texts=["a"]), timeout=5.0)
    except grpc.aio.AioRpcError:
        return False
    return len(got.embeddings) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_router_remembers(
    fragile: Fleet, channel: grpc.aio.Channel, number: signal.Signals
) -> None:
    """What the router learned before it was stopped or killed, it believes when it is back."""
    stub, router = InferenceServiceStub(channel), RouterServiceStub(channel)
    before, last = await beliefs(router), ""
    for i in range(12):
        got = await answer(stub.Generate(question(f"What is {i} + 5?"), timeout=TIMEOUT_S))
        last = got.started.decision_id
        await router.SubmitFeedback(SubmitFeedbackRequest(decision_id=last, score=float(i % 2)))
    learned = await beliefs(router)

    old = fragile.process("router_svc")
    assert old
    old.send_signal(number)
    await eventually(partial(gone, old), 15.0, "the router stopping")
    await eventually(lambda: serves(fragile, fragile.router), 30.0, "the router serving again")
    async with fragile.channel(fragile.router) as fresh:
        again = RouterServiceStub(fresh)
        restored = await beliefs(again)
        repeated = await again.SubmitFeedback(
            SubmitFeedbackRequest(decision_id=last, score=1.0), timeout=5.0
        )
        late = await answer(InferenceServiceStub(fresh).Generate(question(), timeout=TIMEOUT_S))

    assert learned != before
    assert restored.keys() == learned.keys()
    for key, belief in learned.items():
        assert restored[key] == pytest.approx(belief, abs=0.02), key
    assert not repeated.counted
    assert late.text


async def gone(process: psutil.Process) -> bool:
    return not process.is_running()


async def beliefs(router: "RouterServiceAsyncStub") -> dict[tuple[str, str], tuple[float, float]]:
    """Return expected quality and number of outcomes, per model and kind of task."""
    policy = await router.GetPolicy(GetPolicyRequest(), timeout=5.0)

    def key(belief: Belief) -> tuple[str, str]:
        return belief.model, TaskKind.Name(belief.task_kind)

    return {key(b): (b.quality, b.outcomes) for b in policy.beliefs}
