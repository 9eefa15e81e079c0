"""Both Python clients, for tests of what they have in common: the blocking one behind threads."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final, Self, TypeAlias, cast

import pytest

from zeta_client import AsyncClient, Client
from zeta_client.calls import Calls

Kind: TypeAlias = type[AsyncClient]

_END: Final = object()


class FromThreads:
    """The methods of AsyncClient, each done by `Client` in a thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.client = Client(*args, **kwargs)

    async def __aenter__(self) -> Self:
        """Do nothing: it connects when first used."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await asyncio.to_thread(self.client.close)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method that awaits, or one whose iterator does."""
        method = getattr(self.client, name)

        def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None] | Awaitable[Any]:
            if name in {"generate", "ask", "watch_decisions", "watch_fleet"}:
                return _each(method(*args, **kwargs))
            return asyncio.to_thread(method, *args, **kwargs)

        return call

    @property
    def _calls(self) -> Calls:
        thread = self.client._background._thread  # where tests look in the other one
        assert thread is not None
        return thread._client._calls


async def _each(events: Generator[Any, None, None]) -> AsyncGenerator[Any, None]:
    try:
        while (event := await asyncio.to_thread(next, events, _END)) is not _END:
            yield event
    finally:
        await asyncio.to_thread(events.close)


both_clients = pytest.mark.parametrize(
    "kind", [AsyncClient, cast("Kind", FromThreads)], ids=["asyncio", "threads"]
)
