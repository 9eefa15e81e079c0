"""Clients that share no code with Zeta: another language, and nothing but reflection."""

import asyncio
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from tests.proxy import proxied
from tests.system.calls import PROMPT, answer, question
from tests.system.fleet import Fleet

NODE = Path(__file__).parent / "node"
SLOW = "Write a function that returns the sum of the squares of the even numbers in a list"
"""Its answer takes a while."""


async def test_node_streams_an_answer(fleet: Fleet) -> None:
    """A Node program with @grpc/grpc-js and our .proto files streams an answer."""
    node = node_or_reason()
    process = await asyncio.create_subprocess_exec(
        node, NODE / "client.mjs", fleet.router, PROMPT, stdout=-1, stderr=-1
    )
    out, err = await asyncio.wait_for(process.communicate(), 60.0)

    assert process.returncode == 0, err.decode()
    got = json.loads(out)
    assert got["text"]
    assert got["deltas"] >= 1
    assert got["decision_id"]
    assert got["model"] in {m.name for m in fleet.config.models}
    assert got["reason"] in {"FINISH_REASON_STOP", "FINISH_REASON_LENGTH"}


async def test_node_goes_on_where_its_connection_broke(fleet: Fleet) -> None:
    """Its own few lines of Resume are enough: the text is that of an unbroken connection."""
    node, model = node_or_reason(), "coder-7b"
    async with fleet.channel(fleet.router) as channel:
        stub = InferenceServiceStub(channel)
        undisturbed = await answer(stub.Generate(question(SLOW, model=model, max_tokens=32)))
    async with proxied(fleet.router) as network:
        network.bytes_per_s = 2000.0
        process = await asyncio.create_subprocess_exec(
            *(node, NODE / "client.mjs", network.address, SLOW, model), stdout=-1, stderr=-1
        )
        assert process.stderr
        assert await process.stderr.readline() == b"begun\n"
        assert network.cut() == 1
        network.bytes_per_s = 0.0
        out, err = await asyncio.wait_for(process.communicate(), 60.0)

    assert process.returncode == 0, err.decode()
    got = json.loads(out)
    assert got["resumed"] >= 1
    assert got["text"] == undisturbed.text
    assert got["reason"] in {"FINISH_REASON_STOP", "FINISH_REASON_LENGTH"}


def node_or_reason() -> str:
    """Return Node's path; without it or its modules the test is skipped, but not under CI."""
    node = shutil.which("node")
    missing = "" if node else "node is not installed"
    if node and not (NODE / "node_modules" / "@grpc" / "grpc-js").is_dir():
        missing = "the Node client's modules are missing: run `npm ci` in tests/system/node"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    assert node
    return node


def test_the_node_lock_names_no_registry() -> None:
    """The lock pins versions and hashes; where they come from is the reader's own choice."""
    lock = json.loads((NODE / "package-lock.json").read_text())
    packages = {name: p for name, p in lock["packages"].items() if name}

    assert packages
    assert not [name for name, p in packages.items() if "resolved" in p]
    assert all(re.match(r"sha\d+-", p["integrity"]) for p in packages.values())


def test_reflection_is_enough(fleet: Fleet) -> None:
    """A client that knows only an address finds the service, builds a request and streams."""
    with grpc.insecure_channel(fleet.router) as channel:
        known = ProtoReflectionDescriptorDatabase(channel)
        assert "zeta.inference.v1.InferenceService" in known.get_services()
        pool = DescriptorPool(known)
        service = pool.FindServiceByName("zeta.inference.v1.InferenceService")
        method = service.FindMethodByName("Generate")
        request = json_format.ParseDict(
            {"prompt": PROMPT, "sampling": {"temperature": 0.0}, "max_tokens": 16},
            GetMessageClass(method.input_type)(),
        )
        call: Any = channel.unary_stream(
            f"/{service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        events = [response.WhichOneof("event") for response in call(request, timeout=30.0)]

    assert events[0] == "started"
    assert events[-1] == "finished"
    assert "delta" in events


@pytest.mark.parametrize("where", ["router", "telemetry", "embedding", "model"])
def test_every_server_describes_itself(fleet: Fleet, where: str) -> None:
    """Reflection lists each server's services, health and reflection among them."""
    address = fleet.model("coder-7b") if where == "model" else str(getattr(fleet, where))
    own = {
        "router": "zeta.router.v1.RouterService",
        "telemetry": "zeta.telemetry.v1.TelemetryService",
        "embedding": "zeta.embedding.v1.EmbeddingService",
        "model": "zeta.model.v1.ModelControlService",
    }
    with grpc.insecure_channel(address) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert {own[where], "grpc.health.v1.Health"} <= services
    assert ("inference.GRPCInferenceService" in services) == (where in {"router", "model"})
