"""What the blocking client has beyond the other one: threads, an interpreter, a process."""

import asyncio
import gc
import inspect
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from services.kit.config import Server, Tls
from services.kit.errors import ConfigError, UnavailableError
from services.kit.rpc import Context
from tests.contract.router_fakes import Answer, FakeModel, asking, hang, saying, served, until
from zeta_client import AsyncClient, Client

LIMIT_S = 30.0
MANY = 5000


def threads() -> list[str]:
    """Name the clients' threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("zeta ")]


def echoing(seen: list[str]) -> Answer:
    """A model that answers with the question, and writes down how it was asked."""

    async def echo(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        seen.append(type(context).__name__)
        async for event in saying(request.messages.messages[0].content)(request, context):
            yield event

    return echo


@pytest.mark.parametrize(
    "name", [name for name in vars(AsyncClient) if not name.startswith("_") and name != "close"]
)
def test_it_has_every_method_with_the_same_arguments(name: str) -> None:
    """And says of a stream that it is iterated without `async`."""
    theirs, ours = (inspect.signature(getattr(of, name)) for of in (AsyncClient, Client))

    assert ours.parameters == theirs.parameters
    if "AsyncGenerator" in str(theirs.return_annotation):
        shown = str(theirs.return_annotation)
        wanted = shown.replace("AsyncGenerator", "Generator").replace("NoneType", "None")
        assert str(ours.return_annotation).replace(", None, None]", ", None]") == wanted
    else:
        assert ours.return_annotation == theirs.return_annotation


class Held:
    """A model that says one word, then nothing, until its caller leaves."""

    def __init__(self) -> None:
        self.begun, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(
        self, request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        """Answer."""
        try:
            async for event in hang(request, context):
                yield event
                if event.HasField("delta"):
                    self.begun.set()
        finally:
            self.left.set()


async def test_threads_share_a_stream() -> None:
    """Each gets its own answer, and all but the first ones one connection's stream."""
    seen: list[str] = []

    def ask(zeta: Client, name: str) -> list[str]:
        return [zeta.answers(f"{name} {i}", deadline_s=LIMIT_S).text for i in range(20)]

    async with served(FakeModel("a", [echoing(seen)])) as server:
        with Client(server.address) as zeta:
            await asyncio.to_thread(ask, zeta, "warm")
            before = len(seen)
            found = await asyncio.gather(
                *(asyncio.to_thread(ask, zeta, f"thread {n}") for n in range(8))
            )
            names = threads()

    assert found == [[f"thread {n} {i}" for i in range(20)] for n in range(8)]
    assert set(seen[before:]) == {"CallContext"}
    assert names == [f"zeta {server.address}"]


async def test_it_ends_its_thread() -> None:
    """When it is closed, which may be twice; afterwards it says that it is."""
    async with served(FakeModel("a")) as server:
        zeta = Client(server.address)
        unused = threads()
        await asyncio.to_thread(zeta.count_tokens, "x")
        used = threads()
        await asyncio.to_thread(zeta.close)
        zeta.close()

        for call in (partial(zeta.answers, "x"), lambda: next(zeta.ask("x"))):
            with pytest.raises(UnavailableError, match="closed; make another"):
                call()
    assert (unused, used, threads()) == ([], [f"zeta {server.address}"], [])


async def test_one_that_is_dropped_ends_by_itself() -> None:
    """Nobody has to close it."""
    async with served(FakeModel("a")) as server:
        zeta = Client(server.address)
        await asyncio.to_thread(zeta.answers, "x")
        begun = threads()
        del zeta
        gc.collect()

        async def ended() -> bool:
            return not threads()

        await until(ended, LIMIT_S)
    assert len(begun) == 1


async def test_who_waits_is_told_that_it_closed() -> None:
    """At once, from another thread; the model stops."""
    held = Held()
    async with served(FakeModel("a", [held])) as server:
        zeta = Client(server.address)
        waiting = asyncio.create_task(asyncio.to_thread(zeta.answers, "x"))
        async with asyncio.timeout(LIMIT_S):
            await held.begun.wait()
            await asyncio.to_thread(zeta.close)
            with pytest.raises(UnavailableError, match="the client was closed"):
                await waiting
            await held.left.wait()


async def test_a_slow_reader_holds_up_its_model_and_nobody_else() -> None:
    """Little of a stream waits for it, and others are answered meanwhile."""
    sent = 0

    async def endless(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        nonlocal sent
        async for event in saying("x" * MANY, parts=MANY)(request, context):
            sent += 1
            yield event

    model = FakeModel("a")
    async with served(model) as server:
        with Client(server.address) as zeta:

            async def shares() -> bool:
                await asyncio.to_thread(zeta.answers, "warm up")
                thread = zeta._background._thread
                return thread is not None and thread._client._calls.shares

            await until(shares, LIMIT_S)
            model.script[:] = [endless, saying("four")]
            events = zeta.generate(asking())
            await asyncio.to_thread(next, events)
            before = -1
            while before < sent:
                before = sent
                for _ in range(10):
                    await asyncio.to_thread(zeta.answers, "others", deadline_s=LIMIT_S)
            rest = await asyncio.to_thread(list, events)

    assert before < 1000
    assert len(rest) == MANY + 1


async def test_what_cannot_be_made_is_told_by_every_call(tmp_path: Path) -> None:
    """Certificates are read when it connects."""
    tls = Tls(cert=str(tmp_path / "none"), key=str(tmp_path / "none"), ca=str(tmp_path / "none"))
    with Client("127.0.0.1:1", settings=Server(tls=tls)) as zeta:
        for _ in range(2):
            with pytest.raises(ConfigError, match="none"):
                zeta.answers("x")

        async def ended() -> bool:
            return not threads()

        await until(ended, LIMIT_S)


async def python(program: str, *arguments: str) -> Process:
    """Run a program of its own, in which every warning is an error."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program, *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def ended(process: Process) -> tuple[int | None, str, str]:
    """Return exit code, stdout and stderr."""
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate(b"")
    return process.returncode, out.decode(), err.decode()


OPEN = """
import atexit, sys, threading
atexit.register(lambda: print([t.name for t in threading.enumerate() if "zeta" in t.name]))
from zeta_client import Client
zeta = Client(sys.argv[1])
stream = zeta.ask("x")
print(next(stream), flush=True)
"""


async def test_the_interpreter_ends_with_a_stream_open() -> None:
    """Quietly, and the model stops."""
    held = Held()
    async with served(FakeModel("a", [held])) as server:
        found = await ended(await python(OPEN, server.address))
        async with asyncio.timeout(LIMIT_S):
            await held.left.wait()

    assert found == (0, "wait\n[]\n", "")


@pytest.mark.parametrize("call", ["zeta.answers('x')", "list(zeta.ask('x'))"])
async def test_ctrl_c_ends_a_call(call: str) -> None:
    """It is cancelled at the server, and the client goes on to be of use."""
    program = f"""
import sys
from zeta_client import Client
with Client(sys.argv[1]) as zeta:
    try:
        {call}
    except KeyboardInterrupt:
        print(zeta.answers("x").text)
    sys.stdin.read()
"""
    held = Held()
    async with served(FakeModel("a", [held, saying("four")])) as server:
        process = await python(program, server.address)
        async with asyncio.timeout(LIMIT_S):
            await held.begun.wait()
            process.send_signal(signal.SIGINT)
            await held.left.wait()
        assert await ended(process) == (0, "four\n", "")


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
from zeta_client import Client
from services.kit.errors import UnavailableError
zeta = Client(sys.argv[1])
{before}
sys.stdout.flush()
child = os.fork()
try:
    said = zeta.answers("x", deadline_s=20.0).text
except UnavailableError as error:
    said = str(error)
# In one piece: where nothing is buffered, print writes several, and the two share a pipe.
os.write(1, ("parent " if child else "child ").encode() + said.encode() + b"\\n")
if child:
    os.waitpid(child, 0)
    {after}
"""


async def forked(before: str, after: str, *script: Answer) -> list[str]:
    """Return what parent and child say."""
    async with served(FakeModel("a", list(script))) as server:
        program = FORK.format(before=before, after=after)
        code, out, err = await ended(await python(program, server.address))
    assert (code, err) == (0, "")
    return sorted(out.splitlines())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_one_that_was_not_called_outlives_a_fork() -> None:
    """It answers on both sides."""
    assert await forked("", "", saying("four")) == ["child four", "parent four"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_one_that_is_open_stays_the_parents() -> None:
    """Its stream goes on; the child is told at once, by a client of its own as well."""

    async def halting(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncGenerator[inference_pb.GenerateResponse, None]:
        async for event in saying("x" * 1000, parts=1000)(request, context):
            yield event

    said = await forked(
        "stream = zeta.ask('x'); next(stream)",
        "print('rest', sum(1 for _ in stream))",
        halting,
        saying("four"),
    )
    assert said[1:] == ["parent four", "rest 999"]
    assert said[0].startswith("child this process was forked from one whose client was open")
