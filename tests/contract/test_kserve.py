"""The real tritonclient, unchanged, before a real model server and a real router."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.kserve.v2 import grpc_inference_service_pb2 as pb
from zeta.kserve.v2 import grpc_inference_service_pb2_grpc as pb_grpc

from services.kit import rpc
from services.kit.channel import open_channel
from services.kit.errors import InvalidRequestError, UnknownModelError
from services.model import process
from services.model.process import Running
from services.model.state import State
from tests.contract.router_fakes import FakeModel, config_of, failing, hang, routed, saying, world
from tests.contract.test_model_service import MAX_RUNNING, MAX_WAITING, GatedBackend, configuration
from tests.contract.triton import Triton, started
from tests.unit.services.model import tiny

TOKENS = 12


@pytest.fixture(scope="module")
def triton() -> Iterator[Triton]:
    """One process with tritonclient for all tests."""
    with started() as client:
        yield client


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model server."""

    at: str
    backend: GatedBackend
    running: Running
    channel: grpc.aio.Channel

    @property
    def state(self) -> State:
        """Its counters."""
        return self.running.device.state

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the server work until *holds*, for ten seconds at most."""
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - the engine's thread has no event for each
                await asyncio.sleep(0.005)

    async def says(self, prompt: str, **fields: Any) -> str:
        """Return what our own `Generate` answers."""
        stub = inference_grpc.InferenceServiceStub(self.channel)
        request = inference.GenerateRequest(prompt=prompt, **fields)
        return "".join([event.delta.text async for event in stub.Generate(request, timeout=20)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint."""
    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Served]:
    """A model server of its own for each test."""
    config = configuration(folder)
    model, inner = process.load(config.models[0], "tiny-0")
    backend = GatedBackend(inner)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            process.running(config, config.models[0], model, backend, "127.0.0.1:0")
        )
        stack.callback(backend.open)
        channel = await stack.enter_async_context(
            open_channel(running.server.address, config.server)
        )
        yield Served(at=running.server.address, backend=backend, running=running, channel=channel)


def text(*prompts: str) -> list[Any]:
    """Ask with a tensor of shape [n]."""
    return ["text_input", "BYTES", list(prompts)]


def only(*values: bool) -> list[Any]:
    """Ask for the answer without the prompt."""
    return ["exclude_input_in_output", "BOOL", list(values or (True,))]


STREAM = ["stream", "BOOL", [True]]


async def test_the_messages_are_the_standards(triton: Triton) -> None:
    """Whatever we declare, tritonclient declares with the same name, number and type."""
    pool = DescriptorPool()
    for file in await triton.ask("describe", ""):
        pool.AddSerializedFile(bytes.fromhex(file))
    ours, theirs = FileDescriptorProto(), FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(ours)
    for name in ("grpc_service.proto", "model_config.proto"):
        part = FileDescriptorProto()
        pool.FindFileByName(name).CopyToProto(part)
        theirs.MergeFrom(part)
    assert ours.package == theirs.package == "inference"
    assert described(ours)
    assert described(ours) <= described(theirs)


def described(file: FileDescriptorProto) -> set[tuple[object, ...]]:
    """Return all that decides what is on the wire."""
    found: set[tuple[object, ...]] = set()
    for service in file.service:
        for m in service.method:
            types = (m.input_type, m.output_type, m.client_streaming, m.server_streaming)
            found.add((service.name, m.name, *types))
    for enum in file.enum_type:
        found |= {(enum.name, value.name, value.number) for value in enum.value}
    messages = [(m.name, m) for m in file.message_type]
    while messages:
        name, message = messages.pop()
        messages += [(f"{name}.{m.name}", m) for m in message.nested_type]
        for f in message.field:
            oneof = message.oneof_decl[f.oneof_index].name if f.HasField("oneof_index") else ""
            found.add((name, f.name, f.number, f.type, f.label, f.type_name, oneof))
    return found


async def test_a_model_introduces_itself(served: Served, triton: Triton) -> None:
    """Live, ready, and described as a model that takes and gives text, streamed or not."""
    found = await triton.ask("state", served.at, model="tiny")

    assert found["live"]
    assert found["ready"]
    assert found["model_ready"]
    assert found["server"]["name"] == "zeta"
    assert [m["name"] for m in found["index"]["models"]] == ["tiny", "zeta"]
    assert {m["state"] for m in found["index"]["models"]} == {"READY"}
    tensors = {t["name"]: t["datatype"] for t in found["metadata"]["inputs"]}
    assert tensors["text_input"] == "BYTES"
    assert tensors["max_tokens"] == "INT32"
    config = found["config"]["config"]
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert [t["name"] for t in config["input"] if not t.get("optional")] == ["text_input"]
    assert config["output"][0] == {
        "name": "text_output", "data_type": "TYPE_STRING", "dims": ["-1"],
    }  # fmt: skip


async def test_an_unknown_model_is_not_ready_and_not_described(
    served: Served, triton: Triton
) -> None:
    """Readiness is a question with an answer, a description of nothing is NOT_FOUND."""
    found = await triton.ask("state", served.at, model="gpt-99")

    assert found["model_ready"] is False
    assert found["metadata"]["status"] == "StatusCode.NOT_FOUND"
    assert "'gpt-99'" in found["config"]["error"]


async def test_a_draining_model_is_live_and_not_ready(served: Served, triton: Triton) -> None:
    """Load balancers that ask KServe's way leave it alone."""
    await served.running.device.drain(None)
    found = await triton.ask("state", served.at, model="tiny")

    assert found["live"]
    assert not found["ready"]
    assert not found["model_ready"]
    assert {m["state"] for m in found["index"]["models"]} == {"UNAVAILABLE"}


@pytest.mark.parametrize("what", ["infer", "infer_aio"])
async def test_an_answer_is_our_own(served: Served, triton: Triton, what: str) -> None:
    """Sync and asyncio clients get what `Generate` gives, after the prompt as on Triton."""
    expected = await served.says("Hello")
    found = await triton.ask(
        what, served.at, model_name="tiny", request_id="a", inputs=[text("Hello")]
    )

    assert found["outputs"] == {"text_output": [f"Hello{expected}"]}
    assert (found["id"], found["model"]) == ("a", "tiny")


async def test_a_batch_is_answered_in_order(served: Served, triton: Triton) -> None:
    """Shape [n, 1] in is shape [n, 1] out, each prompt's answer in its row."""
    prompts = [f"Number {i}" for i in range(MAX_RUNNING + MAX_WAITING)]
    expected = [[await served.says(prompt)] for prompt in prompts]
    inputs = [["text_input", "BYTES", [[p] for p in prompts]], only()]
    found = await triton.ask("infer", served.at, model_name="tiny", inputs=inputs)

    assert found["outputs"]["text_output"] == expected
    assert len({e for [e] in expected}) > 1


SEEDED = {"temperature": 1.5, "seed": 5, "max_tokens": 7, "top_k": 40}


@pytest.mark.parametrize(
    "given",
    [
        {"parameters": SEEDED, "inputs": []},
        {"inputs": [["sampling_parameters", "BYTES", [json.dumps(SEEDED)]]]},
        {
            "inputs": [
                ["temperature", "FP32", [[1.5]]],
                ["random_seed", "UINT64", [[5]]],
                ["max_tokens", "INT32", [[7]]],
                ["top_k", "INT32", [[40]]],
            ]
        },
    ],
    ids=["parameters", "JSON", "tensors"],
)
async def test_settings_reach_the_model(
    served: Served, triton: Triton, given: dict[str, Any]
) -> None:
    """However they are sent, the answer is the one that `Generate` gives with them."""
    sampling = inference.SamplingParams(temperature=1.5, seed=5, top_k=40)
    expected = await served.says("Hello", sampling=sampling, max_tokens=7)
    given = {**given, "inputs": [text("Hello"), only(), *given["inputs"]]}
    found = await triton.ask("infer", served.at, model_name="tiny", **given)

    assert found["outputs"]["text_output"] == [expected]
    assert expected != await served.says("Hello", max_tokens=7)


async def test_figures_come_when_asked_for(served: Served, triton: Triton) -> None:
    """By name, as the protocol has it, or by the vLLM backend's inputs."""
    returned = [[f"return_{n}", "BOOL", [True]] for n in ("finish_reason", "num_output_tokens")]
    inputs = [text("Hello"), ["max_tokens", "INT32", [3]]]
    asked = await triton.ask("infer", served.at, model_name="tiny", inputs=[*inputs, *returned])
    names = ["finish_reason", "num_input_tokens", "cumulative_logprob", "model", "decision_id"]
    named = await triton.ask("infer", served.at, model_name="", inputs=inputs, outputs=names)

    assert asked["outputs"].keys() == {"text_output", "finish_reason", "num_output_tokens"}
    assert asked["outputs"]["finish_reason"] == ["length"]
    assert asked["outputs"]["num_output_tokens"] == [3]
    assert list(named["outputs"]) == names
    assert named["outputs"]["num_input_tokens"][0] > 0
    assert named["outputs"]["cumulative_logprob"][0] < 0
    assert named["outputs"]["model"] == ["tiny"]
    assert named["outputs"]["decision_id"][0]


async def test_a_stream_gives_pieces(served: Served, triton: Triton) -> None:
    """Together they are the answer; the last response says that it is, without outputs."""
    expected = await served.says("Hello")
    request = {
        "model_name": "tiny", "request_id": "s", "inputs": [text("Hello"), STREAM],
        "enable_empty_final_response": True,
    }  # fmt: skip
    *pieces, last = await triton.ask("stream", served.at, requests=[request])

    assert "".join(p["outputs"]["text_output"][0] for p in pieces) == expected
    assert {p["final"] for p in pieces} == {False}
    assert {p["id"] for p in [*pieces, last]} == {"s"}
    assert last["final"]
    assert last["outputs"] == {}


async def test_a_stream_answers_many_requests(served: Served, triton: Triton) -> None:
    """Streamed, whole and wrong ones side by side; each id gets its own, and one last response."""
    prompts = {f"s{i}": f"Number {i}" for i in range(2)} | {"w": "Whole"}
    expected = {name: await served.says(prompt) for name, prompt in prompts.items()}
    requests: list[Any] = [
        {
            "model_name": "tiny",
            "request_id": name,
            "inputs": [text(prompt), only(), *([STREAM] if name != "w" else [])],
        }
        for name, prompt in prompts.items()
    ]
    wrong = {"model_name": "tiny", "inputs": [text("x"), ["max_tokens", "INT32", [0]]]}
    for what in ("stream", "stream_aio"):
        found = await triton.ask(what, served.at, requests=[requests[0], wrong, *requests[1:]])
        errors = [f for f in found if "error" in f]
        answers = [f for f in found if "error" not in f]
        for name, said in expected.items():
            own = [f for f in answers if f["id"] == name]
            assert "".join(f["outputs"]["text_output"][0] for f in own) == said
            assert [f["final"] for f in own] == [False] * (len(own) - 1) + [True]
        assert len(errors) == 1
        assert errors[0]["error"].startswith("INVALID_ARGUMENT INVALID_FIELD: max_tokens")


async def test_tokens_are_counted_piece_by_piece(served: Served, triton: Triton) -> None:
    """The pieces' counts add up, as with the vLLM backend."""
    returned = [[f"return_{n}", "BOOL", [True]] for n in ("finish_reason", "num_output_tokens")]
    inputs = [text("Hello"), STREAM, *returned]
    found = await triton.ask(
        "stream", served.at, requests=[{"model_name": "tiny", "inputs": inputs}]
    )
    reasons = [f["outputs"]["finish_reason"][0] for f in found]

    assert sum(f["outputs"]["num_output_tokens"][0] for f in found) == TOKENS
    assert reasons == ["None"] * (len(found) - 1) + ["length"]


async def test_a_strict_stream_ends_with_the_status(served: Served, triton: Triton) -> None:
    """`triton_grpc_error` asks for the status that a call of its own would have ended with."""
    wrong = {"model_name": "gpt-99", "inputs": [text("x")]}
    found = await triton.ask(
        "stream", served.at, requests=[wrong], headers={"triton_grpc_error": "true"}
    )

    assert found[-1]["status"] == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize("streamed", [False, True])
async def test_leaving_frees_the_slots(served: Served, triton: Triton, *, streamed: bool) -> None:
    """A cancelled batch, and a cancelled stream, stop all their work within a step."""
    served.backend.closed = True
    prompts = [f"Number {i}" for i in range(MAX_RUNNING + 1)]
    if streamed:
        requests = [{"model_name": "tiny", "inputs": [text(p), STREAM]} for p in prompts]
        await triton.ask("leave_stream", served.at, requests=requests)
    else:
        await triton.ask("leave", served.at, model_name="tiny", inputs=[text(*prompts)])
    device = served.running.device
    await served.until(lambda: len(device._streams) == len(prompts))
    await triton.go_on()
    await served.until(lambda: served.state.totals.cancelled == len(prompts))
    served.backend.open()
    await served.until(lambda: device.occupancy.running == 0)
    assert not device.waiting()


async def test_a_deadline_frees_the_slot(served: Served, triton: Triton) -> None:
    """The client's stops the work at once, whether or not the device is in a step."""
    served.backend.closed = True
    late = {"model_name": "tiny", "inputs": [text("Hello")], "client_timeout": 2.0}
    asked = asyncio.create_task(triton.ask("infer", served.at, **late))
    device = served.running.device
    await served.until(lambda: len(device._streams) == 1)
    assert (await asked)["status"] == "StatusCode.DEADLINE_EXCEEDED"
    await served.until(lambda: not device._streams)
    served.backend.open()
    await served.until(lambda: device.occupancy.running == 0)


@pytest.mark.parametrize("what", ["infer", "stream"])
async def test_a_requests_own_time_ends_it(served: Served, triton: Triton, what: str) -> None:
    """`timeout`, in microseconds, holds for one request; a stream goes on without it."""
    served.backend.closed = True
    late: dict[str, Any] = {"model_name": "tiny", "inputs": [text("Hello")], "timeout": 200_000}
    fields = {"requests": [late]} if what == "stream" else late
    asked = asyncio.create_task(triton.ask(what, served.at, **fields))
    device = served.running.device
    await served.until(lambda: len(device._streams) == 1)
    (work,) = device._streams.values()
    await served.until(lambda: monotonic() > work.request.deadline_s)
    served.backend.permits.release()
    found = await asked
    if what == "stream":
        assert found[0]["error"].startswith("DEADLINE_EXCEEDED DEADLINE_PASSED")
    else:
        assert found["status"] == "StatusCode.DEADLINE_EXCEEDED"
    assert not device._streams


async def test_refusals_have_our_statuses(served: Served, triton: Triton) -> None:
    """No such model, too long a prompt, more prompts than wait: each as `Generate` refuses it."""
    asked = {
        "StatusCode.NOT_FOUND": {"model_name": "gpt-99", "inputs": [text("x")]},
        "StatusCode.INVALID_ARGUMENT": {"model_name": "tiny", "inputs": [text("x" * 300)]},
        "StatusCode.RESOURCE_EXHAUSTED": {"model_name": "tiny", "inputs": [text(*"abcdefgh")]},
    }
    found = {s: await triton.ask("infer", served.at, **request) for s, request in asked.items()}

    assert [answer["status"] for answer in found.values()] == list(asked)
    await served.until(lambda: served.running.device.occupancy.running == 0)
    assert not served.running.device.waiting()


def tensor(name: str, datatype: str, shape: list[int]) -> Any:
    """Describe an input."""
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)


def raw(*given: tuple[str, str, list[int], bytes], **fields: Any) -> pb.ModelInferRequest:
    """Ask with inputs that no client would make."""
    return pb.ModelInferRequest(
        model_name="tiny",
        inputs=[tensor(*each[:3]) for each in given],
        raw_input_contents=[each[3] for each in given],
        **fields,
    )


HI = ("text_input", "BYTES", [1], b"\x02\0\0\0Hi")


def more_elements_than_inputs() -> pb.ModelInferRequest:
    """One input, and the elements of two."""
    request = raw(HI)
    request.raw_input_contents.append(b"more")
    return request


SHARED = {"shared_memory_region": pb.InferParameter(string_param="r")}


@pytest.mark.parametrize(
    ("request_", "field", "hint"),
    [
        (pb.ModelInferRequest(), "inputs", "text_input is missing"),
        (raw(("text_input", "INT32", [1], bytes(4))), "text_input.datatype", "INT32"),
        (raw(("text_input", "TEXT", [1], b"")), "text_input.datatype", "'TEXT'"),
        (raw(("text_input", "BYTES", [2], HI[3])), "text_input", "2 strings"),
        (raw(("text_input", "BYTES", [1], b"\xff\xff\xff\xffHi")), "text_input", "6 bytes"),
        (raw(("text_input", "BYTES", [1], b"\x02\0\0\0Hi!")), "text_input", "7 bytes"),
        (raw(("text_input", "BYTES", [1], b"")), "text_input", "0 bytes"),
        (raw(("text_input", "BYTES", [1], bytes(4))), "text_input[0]", "not be empty"),
        (raw(("text_input", "BYTES", [1], b"\x02\0\0\0H\xff")), "text_input[0]", "0xff at 1"),
        (raw(("text_input", "BYTES", [], HI[3])), "text_input.shape", "[]"),
        (raw(("text_input", "BYTES", [-1], HI[3])), "text_input.shape", "[-1]"),
        (raw(("text_input", "BYTES", [2**62, 2**62], HI[3])), "text_input.shape", "elements"),
        (raw(("text_input", "BYTES", [1] * 100_000, HI[3])), "text_input.shape", "[n, k]"),
        (raw(("text_input", "BYTES", [65], bytes(4 * 65))), "text_input.shape", "64 prompts"),
        (raw(("text_input", "BYTES", [1, 2], bytes(8))), "text_input.shape", "[1, 2]"),
        (raw(HI, HI), "inputs[1].name", "already"),
        (raw(HI, ("text_inputs", "BYTES", [1], HI[3])), "inputs[1].name", "'text_inputs'"),
        (raw(HI, ("max_tokens", "INT32", [1], bytes(3))), "max_tokens", "4 bytes, got 3"),
        (raw(HI, ("max_tokens", "INT32", [3], bytes(12))), "max_tokens", "1 row or 1"),
        (raw(HI, ("max_tokens", "INT32", [1, 2], bytes(8))), "max_tokens.shape", "one element"),
        (raw(HI, ("max_tokens", "INT32", [1], b"\xff" * 4)), "max_tokens", "-1"),
        (raw(HI, ("temperature", "FP32", [1], b"\0\0\xc0\x7f")), "temperature", "finite"),
        (raw(HI, ("stream", "BOOL", [1], b"\1")), "stream", "ModelStreamInfer"),
        (raw(HI, ("beam_width", "INT32", [1], b"\4\0\0\0")), "beam_width", "not served"),
        (more_elements_than_inputs(), "raw_input_contents", "1 inputs, got 2"),
        (
            pb.ModelInferRequest(inputs=[tensor("text_input", "BYTES", [1])]),
            "text_input.contents.bytes_contents",
            "got 0",
        ),
        (
            pb.ModelInferRequest(
                inputs=[
                    pb.ModelInferRequest.InferInputTensor(
                        name="text_input", datatype="BYTES", shape=[1], parameters=SHARED
                    )
                ]
            ),
            "text_input.parameters",
            "shared memory",
        ),
        (raw(HI, model_version="7"), "model_version", "'7'"),
        (
            raw(HI, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")]),
            "outputs[0].name",
            "'logits'",
        ),
        (
            raw(HI, parameters={"max_token": pb.InferParameter(int64_param=1)}),
            "parameters['max_token']",
            "there are apply_chat_template",
        ),
        (
            raw(HI, parameters={"priority": pb.InferParameter(int64_param=-1)}),
            "parameters['priority']",
            "-1",
        ),
        (
            raw(HI, parameters={"sampling_parameters": pb.InferParameter(string_param="[" * 9999)}),
            "sampling_parameters",
            "not JSON",
        ),
        (
            raw(HI, parameters={"sampling_parameters": pb.InferParameter(string_param='{"n": 2}')}),
            "sampling_parameters.n",
            "got 2",
        ),
        (
            raw(HI, parameters={"top_p": pb.InferParameter(double_param=7.0)}),
            "sampling.top_p",
            "(0, 1]",
        ),
    ],
)
async def test_nonsense_is_refused_by_name(
    served: Served, request_: pb.ModelInferRequest, field: str, hint: str
) -> None:
    """INVALID_ARGUMENT, the field and what was wrong with it, in our own details."""
    stub = pb_grpc.GRPCInferenceServiceStub(served.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ModelInfer(request_, timeout=10)
    error = rpc.zeta_error(refused.value)

    assert type(error) is InvalidRequestError
    assert [v.field for v in error.violations] == [field]
    assert hint in str(error)


async def test_elements_come_back_as_they_went(served: Served) -> None:
    """A client of the plain protocol, without raw bytes, gets none."""
    stub = pb_grpc.GRPCInferenceServiceStub(served.channel)
    request = pb.ModelInferRequest(model_name="tiny", inputs=[tensor("text_input", "BYTES", [1])])
    request.inputs[0].contents.bytes_contents.append(b"Hello")
    request.outputs.add(name="text_output")
    request.outputs.add(name="num_input_tokens")
    found = await stub.ModelInfer(request, timeout=10)

    assert not found.raw_output_contents
    assert found.outputs[0].contents.bytes_contents[0].startswith(b"Hello")
    assert found.outputs[1].contents.uint_contents[0] > 0


async def test_the_router_chooses(tmp_path: Path, triton: Triton) -> None:
    """The names "zeta" and "" leave it to the router; the text is then a question to answer."""
    coder, other = FakeModel("coder"), FakeModel("other", [saying("five")])
    async with world(tmp_path, coder, other) as ready:
        at = ready.address
        inputs = [text("2 + 2?"), only()]
        outputs = ["text_output", "model", "decision_id"]
        found = [
            await triton.ask(
                "infer", at, model_name=name, inputs=inputs, outputs=outputs,
                sequence_id=7, sequence_start=True, priority=3, parameters={"policy": "balanced"},
            )
            for name in ("zeta", "", "other")
        ]  # fmt: skip
        state = await triton.ask("state", at, model="zeta")

    assert [f["outputs"]["text_output"] for f in found] == [["four"], ["four"], ["five"]]
    assert [f["outputs"]["model"] for f in found] == [["coder"], ["coder"], ["other"]]
    assert [f["model"] for f in found] == ["zeta", "zeta", "other"]
    assert len({f["outputs"]["decision_id"][0] for f in found}) == 3
    assert coder.requests[0].messages.messages[0].content == "2 + 2?"
    assert other.requests[-1].prompt == "2 + 2?"
    assert coder.requests[0].session_id == "7"
    assert coder.requests[0].priority == inference.PRIORITY_BATCH
    assert [m["name"] for m in state["index"]["models"]] == ["coder", "other", "zeta"]
    assert state["model_ready"]
    assert state["metadata"]["platform"] == "zeta"


async def test_the_router_streams(tmp_path: Path, triton: Triton) -> None:
    """Pieces pass through, several requests share a stream, one that is lost says so."""
    coder = FakeModel("coder", [saying("one two", parts=2)])
    lost = FakeModel("lost", [failing(after=1)])
    requests = [
        {"model_name": name, "request_id": name, "inputs": [text("x"), STREAM]}
        for name in ("coder", "lost")
    ]
    async with world(tmp_path, coder, lost) as ready:
        found = await triton.ask("stream", ready.address, requests=requests)
    pieces = [f["outputs"]["text_output"] for f in found if f.get("id") == "coder"]
    errors = [f["error"] for f in found if "error" in f]

    assert pieces == [["one "], ["two"], [""]]
    assert len(errors) == 1
    assert errors[0].startswith("UNAVAILABLE STREAM_BROKEN: lost-0")


@pytest.mark.parametrize("streamed", [False, True])
async def test_leaving_the_router_stops_the_model(
    tmp_path: Path, triton: Triton, *, streamed: bool
) -> None:
    """The cancellation reaches the replica."""
    slow = FakeModel("slow", [hang])
    request = {"model_name": "slow", "inputs": [text("x"), *([STREAM] if streamed else [])]}
    async with world(tmp_path, slow) as ready, asyncio.timeout(20):
        if streamed:
            await triton.ask("leave_stream", ready.address, requests=[request])
        else:
            await triton.ask("leave", ready.address, **request)
        await slow.arrived.wait()
        await triton.go_on()
        await slow.cancelled.wait()


async def test_the_router_refuses_as_ever(tmp_path: Path, triton: Triton) -> None:
    """Our reasons and details are in the trailers, for whoever reads them."""
    async with world(tmp_path, FakeModel("coder")) as ready:
        seen = await triton.ask("infer", ready.address, model_name="gpt", inputs=[text("x")])
        stub = pb_grpc.GRPCInferenceServiceStub(ready.channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ModelInfer(
                pb.ModelInferRequest(
                    model_name="gpt", inputs=raw(HI).inputs, raw_input_contents=[HI[3]]
                )
            )

    assert seen["status"] == "StatusCode.NOT_FOUND"
    assert isinstance(rpc.zeta_error(refused.value), UnknownModelError)


async def test_a_router_without_models_is_not_ready(tmp_path: Path, triton: Triton) -> None:
    """Live, and described, and ready for nothing."""
    async with routed(config_of(tmp_path, [("coder", ["127.0.0.1:1"])])) as ready:
        found = await triton.ask("state", ready.address, model="coder")

    assert found["live"]
    assert not found["ready"]
    assert not found["model_ready"]
    assert found["metadata"]["name"] == "coder"
