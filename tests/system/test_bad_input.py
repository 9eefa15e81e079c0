"""Nonsense gets the status and the details that the contract promises; the fleet goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as Protobuf
from zeta.embedding.v1.embedding_service_pb2 import EmbedRequest, ProfileRequest
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.inference.v1.inference_service_pb2 import (
    Choice,
    Conversation,
    CountTokensRequest,
    GenerateRequest,
    LogprobParams,
    Message,
    OutputConstraint,
    Preference,
    SamplingParams,
    ScoreRequest,
    TokenIds,
)
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.model.v1.model_control_service_pb2 import (
    Allocation,
    DrainRequest,
    SetAllocationRequest,
)
from zeta.router.v1.router_service_pb2 import (
    Comparison,
    Policy,
    RouteRequest,
    SubmitFeedbackRequest,
    UpdatePolicyRequest,
    WatchDecisionsRequest,
)
from zeta.telemetry.v1.telemetry_service_pb2 import (
    QueryHistoryRequest,
    ReplicaReport,
    ReportRequest,
    WatchRequest,
)

from services.kit.errors import ZetaError
from services.kit.probe import SERVING, health
from tests.system.calls import TIMEOUT_S, answer, endless, question, refusal
from tests.system.fleet import Fleet

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

INFERENCE = "zeta.inference.v1.InferenceService"
EMBEDDING = "zeta.embedding.v1.EmbeddingService"
ROUTER = "zeta.router.v1.RouterService"
TELEMETRY = "zeta.telemetry.v1.TelemetryService"
CONTROL = "zeta.model.v1.ModelControlService"
SERVERS = {
    INFERENCE: ("router", "model"),
    EMBEDDING: ("router", "embedding"),
    ROUTER: ("router",),
    TELEMETRY: ("telemetry",),
    CONTROL: ("model",),
}
STREAMING = {"Generate", "WatchDecisions", "Watch", "Report"}
RPCS = {
    INFERENCE: ("Generate", "CountTokens", "ListModels", "Score"),
    EMBEDDING: ("Embed", "Profile"),
    ROUTER: ("Route", "SubmitFeedback", "WatchDecisions", "GetPolicy", "UpdatePolicy"),
    TELEMETRY: ("Report", "Watch", "QueryHistory"),
    CONTROL: ("GetState", "SetAllocation", "Drain"),
}
NOWHERE = "no-such-model"
NAN = float("nan")
LONG = "many words and no end " * 20_000
HUGE = "many words and no end " * 600_000
"""13 MB, and still below the limit of a message."""
NEGATIVE = Duration(seconds=-1)

INVALID = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class Case:
    """One call that cannot succeed, the reason it must be given, and the field to blame."""

    service: str
    rpc: str
    request: Protobuf
    reason: str = INVALID
    field: str = ""
    servers: tuple[str, ...] = ()
    """Who refuses it; empty: everybody who serves it."""

    def __str__(self) -> str:
        """Name the test."""
        asked = str(self.request).replace("\n", " ")[:40].strip() or "empty"
        return f"{self.rpc}-{asked}"


def generate(**fields: object) -> GenerateRequest:
    """Build a request that is right but for *fields*."""
    request = question()
    for name in fields:
        request.ClearField(name)  # type: ignore[arg-type] # the name is one of its fields
    request.MergeFrom(GenerateRequest(**fields))  # type: ignore[arg-type] # as above
    return request


def sampling(**fields: float) -> GenerateRequest:
    return generate(sampling=SamplingParams(**fields))  # type: ignore[arg-type] # by name


def messages(*said: Message) -> GenerateRequest:
    return generate(messages=Conversation(messages=said))


def policy(**fields: object) -> UpdatePolicyRequest:
    values = {"name": "odd", "max_calls": 1, "deadline_confidence": 0.9} | fields
    return UpdatePolicyRequest(policy=Policy(**values))  # type: ignore[arg-type] # by name


GENERATE = [
    (GenerateRequest(), INVALID, "input"),
    (messages(), INVALID, "messages"),
    (messages(Message(role=inference.ROLE_UNSPECIFIED, content="hi")), INVALID, "role"),
    (messages(Message(role=99, content="hi")), INVALID, "role"),  # type: ignore[arg-type] # bad
    (generate(priority=99), INVALID, "priority"),
    (generate(task_kind=99), INVALID, "task_kind"),
    (generate(max_tokens=0), INVALID, "max_tokens"),
    (generate(stop=["x"] * 17), INVALID, "stop"),
    (generate(stop=[""]), INVALID, "stop"),
    (generate(logprobs=LogprobParams(top=21)), INVALID, "logprobs"),
    (sampling(temperature=-1.0), INVALID, "temperature"),
    (sampling(temperature=3.0), INVALID, "temperature"),
    (sampling(temperature=NAN), INVALID, "temperature"),
    (sampling(top_k=0), INVALID, "top_k"),
    (sampling(top_p=0.0), INVALID, "top_p"),
    (sampling(min_p=2.0), INVALID, "min_p"),
    (sampling(repetition_penalty=0.0), INVALID, "repetition_penalty"),
    (sampling(presence_penalty=float("inf")), INVALID, "presence_penalty"),
    (sampling(frequency_penalty=-3.0), INVALID, "frequency_penalty"),
    (generate(prompt=LONG), "CONTEXT_TOO_LONG", ""),
    (generate(prompt=HUGE), "CONTEXT_TOO_LONG", ""),
    (generate(token_ids=TokenIds(), model="coder-7b"), INVALID, "token_ids"),
    (generate(token_ids=TokenIds(ids=[2**31]), model="coder-7b"), INVALID, "token_ids"),
    (generate(model=NOWHERE), "UNKNOWN_MODEL", ""),
    (generate(constraint=OutputConstraint()), INVALID, "constraint"),
    (generate(constraint=OutputConstraint(choice=Choice())), INVALID, "constraint.choice"),
    (generate(constraint=OutputConstraint(json_schema="{")), INVALID, "constraint.json_schema"),
    (generate(constraint=OutputConstraint(regex="(a")), INVALID, "constraint.regex"),
]
ROUTED = [
    (generate(preference=Preference(policy="odd")), INVALID, "preference.policy"),
    (generate(preference=Preference(min_quality=2.0)), INVALID, "min_quality"),
    (generate(preference=Preference(latency_weight_per_s=-1.0)), INVALID, "latency_weight"),
    (generate(preference=Preference(cost_weight_per_usd=NAN)), INVALID, "cost_weight"),
    (generate(preference=Preference(allowed_models=[NOWHERE])), "UNKNOWN_MODEL", ""),
    (generate(preference=Preference(min_quality=1.0)), "QUALITY_UNREACHABLE", ""),
]
CASES = [
    *(Case(INFERENCE, "Generate", *case) for case in GENERATE),
    Case(INFERENCE, "CountTokens", CountTokensRequest(), field="input"),
    Case(INFERENCE, "CountTokens", CountTokensRequest(model=NOWHERE, prompt="a"), "UNKNOWN_MODEL"),
    Case(INFERENCE, "CountTokens", CountTokensRequest(prompt=HUGE), field="prompt"),
    Case(INFERENCE, "Score", ScoreRequest(), field="input"),
    Case(INFERENCE, "Score", ScoreRequest(prompt="a"), field="continuations"),
    Case(INFERENCE, "Score", ScoreRequest(prompt="a", continuations=["b"] * 65), INVALID, "contin"),
    Case(INFERENCE, "Score", ScoreRequest(prompt="a", continuations=[""]), INVALID, "continuation"),
    Case(INFERENCE, "Score", ScoreRequest(prompt=LONG, continuations=["b"]), "CONTEXT_TOO_LONG"),
    Case(
        INFERENCE,
        "Score",
        ScoreRequest(model=NOWHERE, prompt="a", continuations=["b"]),
        "UNKNOWN_MODEL",
    ),
    Case(EMBEDDING, "Embed", EmbedRequest(), field="texts"),
    Case(EMBEDDING, "Embed", EmbedRequest(texts=[""]), field="texts"),
    Case(EMBEDDING, "Embed", EmbedRequest(texts=["a"] * 257), field="texts"),
    Case(EMBEDDING, "Embed", EmbedRequest(texts=[HUGE]), field="texts"),
    Case(
        EMBEDDING,
        "Embed",
        EmbedRequest(texts=["a"], target_model=NOWHERE),
        "UNKNOWN_MODEL",
        servers=("router",),  # an embedding process knows adapters, not models
    ),
    Case(EMBEDDING, "Profile", ProfileRequest(), field="texts"),
    Case(EMBEDDING, "Profile", ProfileRequest(texts=["a", ""]), field="texts"),
    Case(EMBEDDING, "Profile", ProfileRequest(texts=["a"] * 257), field="texts"),
    Case(ROUTER, "Route", RouteRequest(), field="input"),
    Case(ROUTER, "Route", RouteRequest(generate=generate(prompt=HUGE)), "CONTEXT_TOO_LONG"),
    Case(ROUTER, "SubmitFeedback", SubmitFeedbackRequest(decision_id=HUGE, score=1.0), INVALID),
    Case(ROUTER, "Route", RouteRequest(generate=question(), ticket=True), "NOT_IMPLEMENTED"),
    Case(ROUTER, "Route", RouteRequest(generate=question(model=NOWHERE)), "UNKNOWN_MODEL"),
    *(Case(ROUTER, "Route", RouteRequest(generate=g), r, f) for g, r, f in ROUTED),
    Case(ROUTER, "SubmitFeedback", SubmitFeedbackRequest(score=1.0), field="decision_id"),
    Case(ROUTER, "SubmitFeedback", SubmitFeedbackRequest(decision_id="x"), field="verdict"),
    Case(ROUTER, "SubmitFeedback", SubmitFeedbackRequest(decision_id="x", score=2), field="score"),
    Case(ROUTER, "SubmitFeedback", SubmitFeedbackRequest(decision_id="x", score=NAN), INVALID),
    Case(
        ROUTER,
        "SubmitFeedback",
        SubmitFeedbackRequest(decision_id="x", score=1.0),
        "UNKNOWN_DECISION",
    ),
    Case(
        ROUTER,
        "SubmitFeedback",
        SubmitFeedbackRequest(decision_id="x", comparison=Comparison(preference=-1.0)),
        field="comparison",
    ),
    Case(ROUTER, "WatchDecisions", WatchDecisionsRequest(model=NOWHERE), "UNKNOWN_MODEL"),
    Case(ROUTER, "UpdatePolicy", UpdatePolicyRequest(), field="policy"),
    Case(ROUTER, "UpdatePolicy", policy(name=""), field="name"),
    Case(ROUTER, "UpdatePolicy", policy(latency_weight_per_s=-1.0), field="latency_weight_per_s"),
    Case(ROUTER, "UpdatePolicy", policy(cost_weight_per_usd=NAN), field="cost_weight_per_usd"),
    Case(ROUTER, "UpdatePolicy", policy(explore_ratio=0.9), field="explore_ratio"),
    Case(ROUTER, "UpdatePolicy", policy(deadline_confidence=2.0), field="deadline_confidence"),
    Case(ROUTER, "UpdatePolicy", policy(max_calls=0), field="max_calls"),
    Case(ROUTER, "UpdatePolicy", policy(balancer=99), field="balancer"),
    Case(
        ROUTER,
        "UpdatePolicy",
        UpdatePolicyRequest(policy=policy().policy, etag="stale"),
        "STALE_ETAG",
    ),
    Case(TELEMETRY, "Report", ReportRequest(), field="report"),
    Case(TELEMETRY, "Report", ReportRequest(report=ReplicaReport(seq=1)), field="replica"),
    Case(TELEMETRY, "Report", ReportRequest(report=ReplicaReport(replica=HUGE, seq=1))),
    Case(TELEMETRY, "Watch", WatchRequest(min_interval=NEGATIVE), field="min_interval"),
    Case(TELEMETRY, "QueryHistory", QueryHistoryRequest(replica=NOWHERE), field="replica"),
    Case(TELEMETRY, "QueryHistory", QueryHistoryRequest(window=NEGATIVE), field="window"),
    Case(TELEMETRY, "QueryHistory", QueryHistoryRequest(step=NEGATIVE), field="step"),
    Case(
        CONTROL,
        "SetAllocation",
        SetAllocationRequest(allocation=Allocation(weight=-1.0)),
        field="weight",
    ),
    Case(
        CONTROL,
        "SetAllocation",
        SetAllocationRequest(allocation=Allocation(weight=NAN)),
        field="weight",
    ),
    Case(CONTROL, "Drain", DrainRequest(grace=NEGATIVE), field="grace"),
]
STATUS = {
    INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    "CONTEXT_TOO_LONG": grpc.StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_MODEL": grpc.StatusCode.NOT_FOUND,
    "UNKNOWN_DECISION": grpc.StatusCode.NOT_FOUND,
    "NOT_IMPLEMENTED": grpc.StatusCode.UNIMPLEMENTED,
    "STALE_ETAG": grpc.StatusCode.ABORTED,
    "QUALITY_UNREACHABLE": grpc.StatusCode.FAILED_PRECONDITION,
}
WITHOUT_FIELDS = {"ListModels", "GetPolicy", "GetState"}
"""Their requests have no field that could be invalid UTF-8; unknown fields are ignored."""
INVALID_UTF8 = "invalid UTF-8 in every field"
BYTES = {
    INVALID_UTF8: b"".join(bytes([number << 3 | 2, 2, 0xFF, 0xFE]) for number in range(1, 16)),
    "no protobuf at all": b"\xff" * 64,
}


def address_of(fleet: Fleet, server: str) -> str:
    return fleet.model("coder-7b") if server == "model" else str(getattr(fleet, server))


async def send(
    channel: grpc.aio.Channel, service: str, rpc: str, body: bytes, timeout_s: float = 10.0
) -> bytes:
    """Send *body* as it is; return the first reply."""
    call: Any
    path = f"/{service}/{rpc}"
    if rpc == "Report":
        call = channel.stream_stream(path)
        return bytes(await anext(aiter(call(once(body), timeout=timeout_s)), b""))
    if rpc in STREAMING:
        call = channel.unary_stream(path)
        return bytes(await anext(aiter(call(body, timeout=timeout_s)), b""))
    call = channel.unary_unary(path)
    return bytes(await call(body, timeout=timeout_s))


async def once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def refused(fleet: Fleet, server: str, case: Case) -> ZetaError:
    """Send the case; return the error that came back."""
    async with fleet.channel(address_of(fleet, server)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await send(channel, case.service, case.rpc, case.request.SerializeToString())
    assert failed.value.code() is STATUS[case.reason], failed.value.details()
    return refusal(failed)


@pytest.mark.parametrize(
    ("case", "server"), [(c, s) for c in CASES for s in c.servers or SERVERS[c.service]], ids=str
)
async def test_nonsense_is_refused(fleet: Fleet, case: Case, server: str) -> None:
    """Status, reason and the field to blame are as the contract says, on every server."""
    error = await refused(fleet, server, case)

    assert error.reason == case.reason, error
    if case.reason == INVALID:
        assert error.violations
        assert any(case.field in v.field for v in error.violations), error.violations
    assert "Traceback" not in str(error)
    assert len(str(error)) < 1000, "the offending value is quoted, but not all of it"


@pytest.mark.parametrize("kind", BYTES)
async def test_bytes_that_are_no_message_are_refused(fleet: Fleet, kind: str) -> None:
    """Every rpc of all five services says INVALID_ARGUMENT to what it cannot parse."""
    wrong = []
    for service, rpcs in RPCS.items():
        for server in SERVERS[service]:
            async with fleet.channel(address_of(fleet, server)) as channel:
                for rpc in set(rpcs) - (WITHOUT_FIELDS if kind == INVALID_UTF8 else set()):
                    code = await code_of(send(channel, service, rpc, BYTES[kind]))
                    if code is not grpc.StatusCode.INVALID_ARGUMENT:
                        wrong.append((server, rpc, code))

    assert not wrong


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    """Return the status with which *call* ends."""
    try:
        await call
    except grpc.aio.AioRpcError as failed:
        return failed.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("server", ["router", "model"])
async def test_a_message_over_the_limit_is_refused(fleet: Fleet, server: str) -> None:
    """A request beyond max_message_bytes is refused before it is read whole."""
    body = GenerateRequest(prompt="x" * (fleet.config.server.max_message_bytes + 1))
    async with grpc.aio.insecure_channel(
        address_of(fleet, server), options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        code = await code_of(send(channel, INFERENCE, "Generate", body.SerializeToString()))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("server", ["router", "model", "embedding", "telemetry"])
async def test_huge_input_holds_nobody_up(fleet: Fleet, server: str) -> None:
    """While 13 MB are looked at and refused, the same server answers others."""
    huge = [c for c in CASES if c.request.ByteSize() > len(HUGE)]
    mine = [c for c in huge if server in (c.servers or SERVERS[c.service])]
    waits_s = []
    refusing = asyncio.gather(*(refused(fleet, server, case) for case in mine))
    while not refusing.done():
        start = time.monotonic()
        assert await health(address_of(fleet, server), "", fleet.config.server, 30.0) == SERVING
        waits_s.append(time.monotonic() - start)
    await refusing

    assert mine
    assert max(waits_s) < 5.0


@pytest.mark.parametrize("server", ["router", "model"])
async def test_a_deadline_that_has_passed(fleet: Fleet, server: str) -> None:
    """A call that arrives with no time left ends as DEADLINE_EXCEEDED and starts no work."""
    async with fleet.channel(address_of(fleet, server)) as channel:
        stub = InferenceServiceStub(channel)
        codes = {
            await code_of(answer(stub.Generate(endless("coder-7b"), timeout=timeout_s)))
            for timeout_s in (0.0, 1e-6, 1e-3)
        }

    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_a_call_that_does_not_exist(fleet: Fleet) -> None:
    """An unknown method is UNIMPLEMENTED everywhere."""
    for server in ("router", "model", "telemetry", "embedding"):
        async with fleet.channel(address_of(fleet, server)) as channel:
            code = await code_of(send(channel, INFERENCE, "Nothing", b""))

        assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_the_fleet_goes_on(fleet: Fleet, router: "InferenceServiceAsyncStub") -> None:
    """While nonsense pours in from all sides, good requests are answered."""
    nonsense = [
        code_of(refused(fleet, server, case))
        for case in CASES
        for server in case.servers or SERVERS[case.service]
    ]
    good = [answer(router.Generate(question(), timeout=TIMEOUT_S)) for _ in range(8)]
    answers, _ = await asyncio.gather(asyncio.gather(*good), asyncio.gather(*nonsense))

    assert all(a.text for a in answers)
    assert fleet.supervisor.is_running()
