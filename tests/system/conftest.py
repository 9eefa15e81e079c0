"""One fleet for all tests that leave it as it was."""

import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import msgspec
import pytest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit import config
from tests.system.fleet import Fleet, running

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

HERE = Path(__file__).parent
PAIRED: Final = "general-4b"
CLOSED: Final = "coder-7b"


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


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that makes tickets, whose general model has two replicas and a pace.

    Each of them is slower the more it runs. The coder takes calls from the router and with a
    ticket alone. Leave it as it was.
    """
    folder = tmp_path_factory.mktemp("pair")
    keys = folder / "keys"
    keys.write_text(key_line("one"))
    with running(folder, lambda fleet: with_tickets(with_two_replicas(fleet), keys)) as up:
        yield up


def key_line(name: str) -> str:
    """Make a key, as it stands in a file of keys."""
    return f"{name} {b64encode(secrets.token_bytes(32)).decode()}\n"


def with_two_replicas(fleet: config.FleetConfig) -> config.FleetConfig:
    """Give the general model a second replica and a pace."""
    first, *others = fleet.models
    replicas = (*first.replicas, config.Replica(listen="127.0.0.1:7090"))
    pace = config.Pace(step_s_per_running=0.004)
    paced = msgspec.structs.replace(first, replicas=replicas, pace=pace)
    return msgspec.structs.replace(fleet, models=(paced, *others))


def with_tickets(fleet: config.FleetConfig, keys: Path) -> config.FleetConfig:
    """Have the router make tickets, and the coder want them."""
    models = tuple(
        msgspec.structs.replace(model, requires_ticket=model.name == CLOSED)
        for model in fleet.models
    )
    tickets = config.Tickets(keys=str(keys))
    return msgspec.structs.replace(fleet, models=models, tickets=tickets)


@pytest.fixture
async def channel(fleet: Fleet) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the router."""
    async with fleet.channel(fleet.router) as opened:
        yield opened


@pytest.fixture
def router(channel: grpc.aio.Channel) -> "InferenceServiceAsyncStub":
    """The router, as any client sees it."""
    return InferenceServiceStub(channel)
