"""Streaming from a replica with a router's ticket: a router and two real model servers."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import msgspec
import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.router.v1 import router_service_pb2 as router_pb

from services.kit.config import FleetConfig, Tickets
from services.kit.errors import (
    InvalidRequestError,
    NotBuiltError,
    TicketExpiredError,
    TicketInvalidError,
    TicketMismatchError,
    TicketUsedError,
    UnauthenticatedError,
    UnknownDecisionError,
)
from services.kit.rpc import zeta_error
from services.kit.tickets import TICKET_KEY, Claims, Keyring, digest_of
from services.model import process
from tests.contract.router_fakes import FakeModel, World, candidates_are, routed, until, world
from tests.contract.router_fakes import config_of as router_config
from tests.contract.test_model_service import configuration
from tests.unit.services.model import tiny

R = TypeVar("R")
LIFE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """A router, its replicas' stubs by address, and the file of their keys."""

    world: World
    replicas: "dict[str, inference_grpc.InferenceServiceAsyncStub]"
    keys: Path

    async def route(self, request: inference_pb.GenerateRequest) -> router_pb.RouteResponse:
        """Ask for a ticket. Raises ZetaError."""
        wanted = router_pb.RouteRequest(generate=request, ticket=True)
        return await told(self.world.router.Route(wanted, timeout=10))

    async def stream(
        self, ticket: router_pb.Ticket, request: inference_pb.GenerateRequest, *, address: str = ""
    ) -> list[inference_pb.GenerateResponse]:
        """Use a ticket. Raises ZetaError."""
        stub = self.replicas[address or ticket.address]
        try:
            return [event async for event in stub.Generate(request, metadata=shown(ticket))]
        except grpc.aio.AioRpcError as failed:
            raise zeta_error(failed) from None

    async def report(
        self, ticket: router_pb.Ticket, events: list[inference_pb.GenerateResponse]
    ) -> bool:
        """Report an answer. Raises ZetaError."""
        finished = events[-1].finished
        wanted = router_pb.ReportOutcomeRequest(token=ticket.token, finished=finished)
        return (await told(self.world.router.ReportOutcome(wanted, timeout=10))).counted


def line(name: str, byte: int) -> str:
    """A key in a file."""
    return f"{name} {b64encode(bytes([byte]) * 32).decode()}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint."""
    return tiny.write(tmp_path_factory.mktemp("tiny"))


async def serve(
    stack: AsyncExitStack, folder: Path, state: Path, *, required: bool = False
) -> Direct:
    """Run two replicas of the small model, and a router before them."""
    keys = state / "keys"
    keys.write_text(line("one", 1))
    tickets = Tickets(keys=str(keys), life_s=LIFE_S)
    base = configuration(folder)
    settings = msgspec.structs.replace(base.models[0], requires_ticket=required, max_running=4)
    config = msgspec.structs.replace(base, tickets=tickets, models=(settings,))
    addresses = []
    for number in range(2):
        model, backend = process.load(settings, f"tiny-{number}")
        running = process.running(config, settings, model, backend, "127.0.0.1:0")
        addresses.append((await stack.enter_async_context(running)).server.address)
    ready = await stack.enter_async_context(
        routed(with_tickets(router_config(state, [("tiny", addresses)]), tickets, required))
    )
    await until(lambda: candidates_are(ready, 2))
    channels = [await stack.enter_async_context(grpc.aio.insecure_channel(a)) for a in addresses]
    return Direct(
        world=ready,
        replicas={
            address: inference_grpc.InferenceServiceStub(channel)
            for address, channel in zip(addresses, channels, strict=True)
        },
        keys=keys,
    )


def with_tickets(config: FleetConfig, tickets: Tickets, required: bool) -> FleetConfig:  # noqa: FBT001
    """Have the router make tickets, and the models want them if *required*."""
    replace = msgspec.structs.replace
    models = tuple(replace(model, requires_ticket=required) for model in config.models)
    return replace(config, tickets=tickets, models=models)


@pytest.fixture
async def direct(folder: Path, tmp_path: Path) -> AsyncIterator[Direct]:
    """Replicas that take calls without a ticket as well."""
    async with AsyncExitStack() as stack:
        yield await serve(stack, folder, tmp_path)


@pytest.fixture
async def closed(folder: Path, tmp_path: Path) -> AsyncIterator[Direct]:
    """Replicas that take calls from the router and with tickets alone."""
    async with AsyncExitStack() as stack:
        yield await serve(stack, folder, tmp_path, required=True)


async def test_a_ticket_leads_to_the_answer(closed: Direct) -> None:
    """The replica answers as it would the router, under the decision's id; the report counts."""
    asked = asking()
    routed_ = await closed.route(asked)
    events = await closed.stream(routed_.ticket, asked)

    assert events[0].started.decision_id == routed_.decision.id
    assert events[0].started.replica == routed_.ticket.replica
    assert events[0].started.replica == routed_.decision.candidates[0].replica
    assert events[-1].HasField("finished")
    assert await closed.report(routed_.ticket, events)
    assert not await closed.report(routed_.ticket, events)


async def test_the_answer_is_the_routers_own(direct: Direct) -> None:
    """Greedy, the same tokens come on both paths."""
    asked = asking()
    ticket = (await direct.route(asked)).ticket
    proxied = [event async for event in direct.world.inference.Generate(asked)]

    assert text(await direct.stream(ticket, asked)) == text(proxied) != ""


async def test_feedback_on_a_ticketed_answer_is_learned_from(direct: Direct) -> None:
    """What the model is believed to be good at moves with the verdict."""
    asked = asking()
    routed_ = await direct.route(asked)
    await direct.report(routed_.ticket, await direct.stream(routed_.ticket, asked))

    async def outcomes() -> float:
        policy = await direct.world.router.GetPolicy(router_pb.GetPolicyRequest())
        return sum(belief.outcomes for belief in policy.beliefs)

    before = await outcomes()
    said = await told(
        direct.world.router.SubmitFeedback(
            router_pb.SubmitFeedbackRequest(decision_id=routed_.decision.id, score=1.0)
        )
    )

    assert said.counted
    assert await outcomes() > before


async def test_time_and_length_are_learned(direct: Direct) -> None:
    """The mean times that the router tells are the replica's own."""
    asked = asking()
    routed_ = await direct.route(asked)
    events = await direct.stream(routed_.ticket, asked)
    await direct.report(routed_.ticket, events)

    policy = await direct.world.router.GetPolicy(router_pb.GetPolicyRequest())
    total = events[-1].finished.timings.total.ToNanoseconds() / 1e9

    assert max(belief.total_mean_s for belief in policy.beliefs) == pytest.approx(total)


async def test_a_stolen_ticket_is_of_no_use_elsewhere(direct: Direct) -> None:
    """Another replica refuses it, though its own has not seen it yet and then takes it."""
    asked = asking()
    ticket = (await direct.route(asked)).ticket
    (other,) = set(direct.replicas) - {ticket.address}

    with pytest.raises(TicketMismatchError, match="the ticket is for"):
        await direct.stream(ticket, asked, address=other)
    assert await direct.stream(ticket, asked)


async def test_a_ticket_is_of_no_use_for_another_request(direct: Direct) -> None:
    """Neither another question nor a longer answer nor another tenant's."""
    ticket = (await direct.route(asking())).ticket

    for other in (asking("Ho"), asking(max_tokens=9), asking(tenant="b")):
        with pytest.raises(TicketMismatchError, match="another request"):
            await direct.stream(ticket, other)
    assert await direct.stream(ticket, asking())


async def test_a_ticket_is_good_once(direct: Direct) -> None:
    """The second use is refused."""
    ticket = (await direct.route(asking())).ticket
    await direct.stream(ticket, asking())

    with pytest.raises(TicketUsedError):
        await direct.stream(ticket, asking())


async def test_an_altered_ticket_is_refused(direct: Direct) -> None:
    """So is one that was made with another key, and one that is no ticket."""
    ticket = (await direct.route(asking())).ticket
    forged = direct.keys.with_name("forged")
    forged.write_text(line("one", 9))

    for token in (
        ticket.token[:-3] + b"AAA",
        Keyring(forged).sign(Claims(replica="tiny-0", issued_s=0.0, expires_s=9e9)).encode(),
        b"nonsense",
    ):
        with pytest.raises(TicketInvalidError):
            await direct.stream(router_pb.Ticket(address=ticket.address, token=token), asking())


async def test_an_expired_ticket_is_refused(direct: Direct) -> None:
    """Whatever else it says."""
    ticket = (await direct.route(asking())).ticket
    keyring = Keyring(direct.keys)
    claims = keyring.read(ticket.token.decode())
    late = msgspec.structs.replace(claims, expires_s=claims.issued_s - 2.0)

    with pytest.raises(TicketExpiredError):
        await direct.stream(
            router_pb.Ticket(address=ticket.address, token=keyring.sign(late).encode()), asking()
        )
    assert claims.expires_s == pytest.approx(claims.issued_s + LIFE_S)
    assert claims.digest == digest_of(asking())


async def test_closed_replicas_want_a_ticket_or_the_router(closed: Direct) -> None:
    """Every call that costs is refused without one; through the router all of them work."""
    stub = next(iter(closed.replicas.values()))
    count = inference_pb.CountTokensRequest(model="tiny", prompt="Hi")
    score = inference_pb.ScoreRequest(model="tiny", prompt="Hi", continuations=["Ho"])

    for call in (stub.CountTokens(count), stub.Score(score)):
        with pytest.raises(UnauthenticatedError):
            await told(call)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        [event async for event in stub.Generate(asking())]
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

    assert (await told(closed.world.inference.CountTokens(count))).tokens
    assert (await told(closed.world.inference.Score(score))).scores
    assert [event async for event in closed.world.inference.Generate(asking())]


async def test_keys_are_replaced_without_a_refusal(closed: Direct) -> None:
    """While callers go on, a new key comes beside the old, then before it, then the old one goes.

    Each file is put in its place at once, as an editor or Kubernetes does it; nobody restarts.
    """
    latest = ["", ""]
    stop = asyncio.Event()

    async def go_on(caller: int) -> None:
        while not stop.is_set():
            ticket = (await closed.route(asking())).ticket
            latest[caller] = ticket.token.decode().split(".")[1]
            events = await closed.stream(ticket, asking())
            assert await closed.report(ticket, events)
            assert [event async for event in closed.world.inference.Generate(asking())]

    async def signed_with(name: str) -> None:
        async def by_both() -> bool:
            return latest == [name, name] or callers.done()

        await until(by_both)

    callers = asyncio.gather(go_on(0), go_on(1))
    try:
        await signed_with("one")
        for text_ in (line("one", 1) + line("two", 2), line("two", 2) + line("one", 1)):
            put(closed.keys, text_)
        await signed_with("two")
        put(closed.keys, line("two", 2) + line("three", 3))
        put(closed.keys, line("three", 3) + line("two", 2))
        await signed_with("three")
    finally:
        stop.set()
        await callers


async def test_only_the_holder_reports(direct: Direct) -> None:
    """A decision's id is not enough, a made-up time is refused, an unknown ticket is not known."""
    ticket = (await direct.route(asking())).ticket
    events = await direct.stream(ticket, asking())
    claims = Keyring(direct.keys).read(ticket.token.decode())

    with pytest.raises(TicketInvalidError):
        await direct.report(router_pb.Ticket(token=claims.decision_id.encode()), events)
    stranger = Keyring(direct.keys).sign(msgspec.structs.replace(claims, decision_id="x"))
    with pytest.raises(UnknownDecisionError, match="'x'"):
        await direct.report(router_pb.Ticket(token=stranger.encode()), events)
    lied = inference_pb.GenerateResponse()
    lied.CopyFrom(events[-1])
    lied.finished.timings.total.FromSeconds(3600)
    with pytest.raises(InvalidRequestError, match=r"finished\.timings\.total"):
        await direct.report(ticket, [lied])
    assert await direct.report(ticket, events)


async def test_an_answer_that_came_to_nothing_is_reported(direct: Direct) -> None:
    """Its ticket stops counting; nothing is learned; a reason is needed."""
    ticket = (await direct.route(asking())).ticket
    router, nothing = direct.world.router, router_pb.UNFINISHED_REASON_UNSPECIFIED
    with pytest.raises(InvalidRequestError, match="one of finished, unfinished"):
        await told(router.ReportOutcome(router_pb.ReportOutcomeRequest(token=ticket.token)))
    with pytest.raises(InvalidRequestError, match="unfinished: must be a reason"):
        await told(
            router.ReportOutcome(
                router_pb.ReportOutcomeRequest(token=ticket.token, unfinished=nothing)
            )
        )

    said = await told(
        router.ReportOutcome(
            router_pb.ReportOutcomeRequest(
                token=ticket.token, unfinished=router_pb.UNFINISHED_REASON_REFUSED
            )
        )
    )

    assert said.counted


async def test_an_answer_is_not_resumed_with_a_ticket(direct: Direct) -> None:
    """What the router holds of an answer, it goes on with itself."""
    resume = inference_pb.Resume(decision_id="d", after_seq=1)

    with pytest.raises(InvalidRequestError, match=r"generate\.resume"):
        await direct.route(asking(resume=resume))


async def test_without_keys_there_are_no_tickets(tmp_path: Path) -> None:
    """The refusal says what the operator can do."""
    async with world(tmp_path, FakeModel("a")) as ready:
        with pytest.raises(NotBuiltError, match=r"tickets\.keys"):
            await told(ready.router.Route(router_pb.RouteRequest(generate=asking(), ticket=True)))
        with pytest.raises(NotBuiltError, match=r"tickets\.keys"):
            await told(
                ready.router.ReportOutcome(
                    router_pb.ReportOutcomeRequest(
                        token=b"x", unfinished=router_pb.UNFINISHED_REASON_BROKEN
                    )
                )
            )


def asking(
    prompt: str = "Hi", *, max_tokens: int = 8, **fields: object
) -> inference_pb.GenerateRequest:
    """Ask for a short greedy answer."""
    return inference_pb.GenerateRequest(
        prompt=prompt,
        sampling=inference_pb.SamplingParams(temperature=0.0),
        max_tokens=max_tokens,
        **fields,  # type: ignore[arg-type] # tests vary them
    )


def shown(ticket: router_pb.Ticket) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with a ticket."""
    return ((TICKET_KEY, ticket.token.decode()),)


def text(events: list[inference_pb.GenerateResponse]) -> str:
    """Put an answer together."""
    return "".join(event.delta.text for event in events)


def put(path: Path, text_: str) -> None:
    """Replace a file at once."""
    new = path.with_name("new")
    new.write_text(text_)
    new.replace(path)


async def told(call: Awaitable[R]) -> R:
    """Wait for a call. Raises ZetaError."""
    try:
        return await call
    except grpc.aio.AioRpcError as failed:
        raise zeta_error(failed) from None
