"""Load reports on the wire, read by gRPC's own weighted round robin.

The report behind a call is seen through that policy alone: gRPC's C core takes it out of the
metadata that Python is shown. `tests/system/test_orca.py` has Node read it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.orca.data.v3.orca_load_report_pb2 import OrcaLoadReport
from zeta.orca.service.v3.orca_pb2 import OrcaLoadReportRequest
from zeta.orca.service.v3.orca_pb2_grpc import OpenRcaServiceStub

from services.kit.orca import ORCA, Use
from services.kit.rpc import Context
from services.kit.server import serving
from tests.contract.router_fakes import (
    INFERENCE,
    SETTINGS,
    FakeModel,
    asking,
    failing,
    read,
    saying,
    until,
    world,
)


async def test_reports_stream(tmp_path: Path) -> None:
    """A report comes at once and then as often as asked; later ones count what was done since."""
    model = FakeModel("a", [saying("four"), failing()])
    async with world(tmp_path, model) as ready:
        interval = Duration(nanos=100_000_000)
        reports = OpenRcaServiceStub(ready.channel).StreamCoreMetrics(
            OrcaLoadReportRequest(report_interval=interval)
        )
        first = await reports.read()
        assert isinstance(first, OrcaLoadReport)
        assert first.rps_fractional == 0.0
        assert first.named_metrics["queue_depth"] == 0.0
        assert 0.0 < first.mem_utilization < 1.0

        async def seen(holds: Callable[[OrcaLoadReport], bool]) -> bool:
            report = await reports.read()
            assert isinstance(report, OrcaLoadReport)
            return holds(report)

        await read(ready.inference.Generate(asking()))
        await until(lambda: seen(lambda r: r.rps_fractional > 0.0 and r.eps == 0.0))
        with pytest.raises(grpc.aio.AioRpcError):
            await read(ready.inference.Generate(asking()))
        await until(lambda: seen(lambda r: r.eps > 0.0 and r.application_utilization > 0.0))
        reports.cancel()


async def test_calls_that_are_no_work_do_not_count(tmp_path: Path) -> None:
    """Whoever lists models for ever makes the router no busier."""
    async with world(tmp_path, FakeModel("a")) as ready:
        await ready.inference.ListModels(inference_pb.ListModelsRequest())
        reports = OpenRcaServiceStub(ready.channel).StreamCoreMetrics(OrcaLoadReportRequest())
        report = await reports.read()
        reports.cancel()

    assert isinstance(report, OrcaLoadReport)
    assert report.rps_fractional == report.application_utilization == 0.0


async def test_reflection_knows_the_standard(tmp_path: Path) -> None:
    """A client that knows only the standard's name finds the service and its messages."""
    async with world(tmp_path, FakeModel("a")) as ready:
        names, described = await asyncio.to_thread(described_by, ready.address)

    assert ORCA in names
    assert described


@pytest.mark.parametrize("out_of_band", [False, True], ids=["trailers", "stream"])
async def test_weighted_round_robin_goes_by_the_reports(out_of_band: bool) -> None:  # noqa: FBT001
    """The policy that is gRPC's own sends most of the work to the less used replica.

    Both do the same work at the same rate; one has 16 slots and the other 2, so that by
    weighted round robin's formula the first gets eight times as much.
    """
    hits: Counter[int] = Counter()
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(replica(hits, number, slots))
            for number, slots in enumerate((16, 2))
        ]
        policy = {
            "weighted_round_robin": {
                "blackoutPeriod": "0s",
                "weightUpdatePeriod": "0.1s",
                "enableOobLoadReport": out_of_band,
                "oobReportingPeriod": "0.1s",
            }
        }
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(
                "ipv4:" + ",".join(addresses),
                [("grpc.service_config", json.dumps({"loadBalancingConfig": [policy]}))],
            )
        )
        stub = inference_grpc.InferenceServiceStub(channel)

        async def shifted() -> bool:
            hits.clear()
            for _ in range(45):
                await read(stub.Generate(asking()))
            return hits[0] >= 3 * hits[1] > 0

        await until(shifted, 20.0)


@asynccontextmanager
async def replica(hits: Counter[int], number: int, slots: int) -> AsyncIterator[str]:
    """Serve a model with so many slots that counts its calls; yield where."""

    async def answer(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        hits[number] += 1
        async for event in saying("four")(request, context):
            yield event

    fake = FakeModel("a", [answer])
    add = partial(inference_grpc.add_InferenceServiceServicer_to_server, fake)
    use = Use(slots=slots)
    async with serving("127.0.0.1:0", SETTINGS, {INFERENCE: add}, use=lambda: use) as server:
        await server.set_serving()
        yield server.address


def described_by(address: str) -> tuple[list[str], bool]:
    """Return the services that reflection names at *address*, and whether ORCA's is described."""
    with grpc.insecure_channel(address) as channel:
        known = ProtoReflectionDescriptorDatabase(channel)
        file = known.FindFileContainingSymbol(ORCA)
        return list(known.get_services()), "StreamCoreMetrics" in str(file)
