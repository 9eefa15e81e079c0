"""Streaming from a replica with a ticket, in a fleet of real processes."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import grpc
import pytest
from zeta.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.router.v1.router_service_pb2 import RouteRequest, RouteResponse
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub

from services.kit import config
from services.kit.errors import (
    TicketInvalidError,
    TicketMismatchError,
    TicketUsedError,
    UnauthenticatedError,
)
from services.kit.probe import SERVING, health
from services.kit.rpc import zeta_error
from tests.system.calls import PROMPT, TIMEOUT_S, endless, question
from tests.system.conftest import CLOSED, PAIRED, key_line
from tests.system.fleet import ZETA, Fleet, eventually
from tests.system.test_clients import NODE, node_or_reason
from zeta_client import AsyncClient

LONG = question(model=PAIRED, max_tokens=60)


async def routed(fleet: Fleet, request: GenerateRequest) -> RouteResponse:
    """Get a ticket."""
    async with fleet.channel(fleet.router) as channel:
        stub = RouterServiceStub(channel)
        return await stub.Route(RouteRequest(generate=request, ticket=True), timeout=TIMEOUT_S)


async def streamed(
    fleet: Fleet, address: str, request: GenerateRequest, token: bytes = b""
) -> list[GenerateResponse]:
    """Ask a replica, with a ticket if there is one. Raises ZetaError."""
    metadata = (("zeta-ticket", token.decode()),) if token else ()
    async with fleet.channel(address) as channel:
        call = InferenceServiceStub(channel).Generate(request, timeout=TIMEOUT_S, metadata=metadata)
        try:
            return [event async for event in call]
        except grpc.aio.AioRpcError as failed:
            raise zeta_error(failed) from None


def text(events: list[GenerateResponse]) -> str:
    """Put an answer together."""
    return "".join(event.delta.text for event in events)


async def test_no_token_passes_through_the_router(pair: Fleet) -> None:
    """While the router is stopped dead, the whole answer comes; it is the one the router gives."""
    async with AsyncClient(pair.router) as zeta:
        proxied = [event async for event in zeta.generate(LONG)]
    ticket = (await routed(pair, LONG)).ticket
    router = pair.process("router_svc")
    assert router
    router.send_signal(signal.SIGSTOP)
    try:
        events = await streamed(pair, ticket.address, LONG, ticket.token)
    finally:
        router.send_signal(signal.SIGCONT)

    assert events[-1].HasField("finished")
    assert text(events) == text(proxied) != ""


async def test_a_ticket_is_good_for_one_thing(pair: Fleet) -> None:
    """Not on another replica, not altered, not for another question, and not twice."""
    ticket = (await routed(pair, LONG)).ticket
    replicas = config.model_named(pair.config, PAIRED).replicas
    (other,) = {replica.listen for replica in replicas} - {ticket.address}

    with pytest.raises(TicketMismatchError):
        await streamed(pair, other, LONG, ticket.token)
    with pytest.raises(TicketInvalidError):
        await streamed(pair, ticket.address, LONG, ticket.token[:-4] + b"AAAA")
    with pytest.raises(TicketMismatchError):
        await streamed(pair, ticket.address, question("And now?", model=PAIRED), ticket.token)
    assert await streamed(pair, ticket.address, LONG, ticket.token)
    with pytest.raises(TicketUsedError):
        await streamed(pair, ticket.address, LONG, ticket.token)


async def test_a_closed_model_answers_the_router_and_its_tickets(pair: Fleet) -> None:
    """Nobody else."""
    asked = question(model=CLOSED)
    ticket = (await routed(pair, asked)).ticket

    with pytest.raises(UnauthenticatedError):
        await streamed(pair, pair.model(CLOSED), asked)
    direct = await streamed(pair, pair.model(CLOSED), asked, ticket.token)
    async with AsyncClient(pair.router) as zeta:
        proxied = [event async for event in zeta.generate(asked)]

    assert text(direct) == text(proxied) != ""


async def test_keys_are_replaced_under_load(pair: Fleet) -> None:
    """Router and models take up new keys while callers go on, and nobody is refused."""
    file, stop = Path(pair.config.tickets.keys), asyncio.Event()
    old = await asyncio.to_thread(file.read_text)
    new, signers = key_line("two"), list[str]()

    async def go_on() -> None:
        while not stop.is_set():
            for asked in (question(model=PAIRED, max_tokens=4), question(model=CLOSED)):
                ticket = (await routed(pair, asked)).ticket
                await streamed(pair, ticket.address, asked, ticket.token)
                await streamed(pair, pair.router, asked)
                signers.append(ticket.token.decode().split(".")[1])

    async def signed_by(name: str) -> None:
        async def holds() -> bool:
            return signers[-2:] == [name] * 2 or caller.done()

        await eventually(holds, 30.0, f"key {name} signs")

    caller = asyncio.create_task(go_on())
    try:
        await signed_by("one")
        for keys in (old + new, new + old):
            replace(file, keys)
        await signed_by("two")
        replace(file, old + new)
        await signed_by("one")
        replace(file, old)
    finally:
        stop.set()
        await caller


async def test_a_replica_that_dies_costs_nothing(pair: Fleet) -> None:
    """A direct stream goes on through the router when the replica is killed in the middle of it."""
    asked, kinds, numbers, killed = endless(PAIRED, 200), list[str | None](), list[int](), ""
    last = GenerateResponse()
    async with AsyncClient(pair.router) as zeta:
        async for event in zeta.generate(asked, lookaside=True):
            kinds.append(event.WhichOneof("event"))
            if kinds[-1] == "started":
                killed = event.started.replica
            elif kinds[-1] == "delta":
                numbers.append(event.delta.seq)
            if len(numbers) == 10 and kinds[-1] == "delta":
                process = pair.process("services.model", PAIRED, killed.rpartition("-")[2])
                assert process
                process.kill()
            last = event

    async def both_are_back() -> bool:
        found = [
            await health(replica.listen, "", pair.config.server, 1.0)
            for replica in config.model_named(pair.config, PAIRED).replicas
        ]
        return found == [SERVING] * 2

    assert kinds.count("handover") == 1
    assert kinds[-1] == "finished"
    assert numbers == list(range(1, len(numbers) + 1))
    assert last.finished.usage.completion_tokens == 200
    await eventually(both_are_back, 30.0, "the killed replica serving again")


async def test_node_streams_with_a_ticket(pair: Fleet) -> None:
    """Fifty lines with @grpc/grpc-js and our .proto files do all of it."""
    process = await asyncio.create_subprocess_exec(
        node_or_reason(), NODE / "direct.mjs", pair.router, PROMPT, stdout=-1, stderr=-1
    )
    out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)

    assert process.returncode == 0, err.decode()
    got = json.loads(out)
    assert got["text"]
    assert got["same_decision"]
    assert got["counted"]
    assert got["address"] in {r.listen for m in pair.config.models for r in m.replicas}


def test_the_command_line_streams_with_a_ticket(pair: Fleet) -> None:
    """`zeta ask --direct` answers as without, and the replica knows the decision."""
    command = [str(ZETA), "ask", PROMPT, "--target", pair.router, "--temperature", "0", "--json"]
    direct, plain = (
        subprocess.run(
            [*command, *more], capture_output=True, check=True, timeout=TIMEOUT_S, text=True
        )
        for more in (["--direct", "--model", CLOSED], ["--model", CLOSED])
    )
    last, other = (json.loads(run.stdout.splitlines()[-1]) for run in (direct, plain))

    assert last["text"] == other["text"] != ""
    assert last["plan"] == f"single({CLOSED})"


def replace(file: Path, keys: str) -> None:
    """Put another file in its place at once."""
    file.with_name("next").write_text(keys)
    file.with_name("next").replace(file)
