"""One fleet for all tests that leave it as it was."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from tests.system.fleet import Fleet, running

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The shared fleet: use it, but break nothing."""
    with running(tmp_path_factory.mktemp("fleet")) as up:
        yield up


@pytest.fixture
async def channel(fleet: Fleet) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the router."""
    async with fleet.channel(fleet.router) as opened:
        yield opened


@pytest.fixture
def router(channel: grpc.aio.Channel) -> "InferenceServiceAsyncStub":
    """The router, as any client sees it."""
    return InferenceServiceStub(channel)
