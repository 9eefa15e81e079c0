"""A TCP proxy that does to connections what networks do: it cuts, slows and stops them."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_CHUNK_BYTES = 16_384
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero: closing sends RST, as a broken link's firewall or a dead host does."""


@dataclass(slots=True, eq=False, kw_only=True)
class Proxy:
    """Passes connections on to *target*, HOST:PORT. Owned by the event loop."""

    target: str
    address: str = ""
    """Where it listens."""
    delay_s: float = 0.0
    """Each piece is held back so long, in both directions."""
    bytes_per_s: float = 0.0
    """No more passes per connection and direction; 0: no limit."""
    passed_bytes: int = 0
    connections: int = 0
    """So many were made through it."""
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: connections stay, and nothing passes."""
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _joined: set[asyncio.Task[None]] = field(default_factory=set)

    def cut(self) -> int:
        """Reset every connection, and say how many there were."""
        ends, self._open = self._open, set()
        for end in ends:
            _reset(end)
        return len(ends) // 2

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a caller with the target until either end is gone."""
        self.connections += 1
        task = asyncio.create_task(self._join(reader, writer))
        self._joined.add(task)
        task.add_done_callback(self._joined.discard)

    async def closed(self) -> None:
        """Reset every connection, and wait until all are gone."""
        tasks = list(self._joined)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            _reset(writer)
            return
        self._open |= {writer, back}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, back))
                both.create_task(self._pass(there, writer))
        except* OSError:
            pass
        finally:
            self._open -= {writer, back}
            _reset(writer)
            _reset(back)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(self._piece_bytes()):
            await self.flowing.wait()
            pause_s = self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0)
            if pause_s:
                await asyncio.sleep(pause_s)
            sink.write(data)
            await sink.drain()
            self.passed_bytes += len(data)
        raise ConnectionResetError  # one end has closed: so does the other

    def _piece_bytes(self) -> int:
        """Twenty pieces a second on a slow link, so that it trickles."""
        return max(int(self.bytes_per_s / 20), 1) if self.bytes_per_s else _CHUNK_BYTES


def _reset(end: asyncio.StreamWriter) -> None:
    own: socket.socket | None = end.get_extra_info("socket")
    with suppress(OSError):
        if own is not None and own.fileno() >= 0:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.transport.abort()


@asynccontextmanager
async def proxied(target: str, listen: str = "127.0.0.1:0") -> AsyncIterator[Proxy]:
    """Run a proxy before *target*; leaving the context resets what is open."""
    proxy = Proxy(target=target)
    proxy.flowing.set()
    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(proxy.accept, host, int(port))
    proxy.address = f"{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.closed()
        await server.wait_closed()
