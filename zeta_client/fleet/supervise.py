"""Keep a fleet's processes running, and stop them in order; what they do is theirs to know.

A process that ends is started again after an exponentially growing, jittered pause. Until the
fleet has been ready once, a process that refuses its configuration (exit code 2), or that ends
again and again, fails the start instead. Children run in sessions of their own, so that
a Ctrl-C in the terminal reaches them as an orderly stop from here and not beside it.
"""

import asyncio
import os
import signal
from asyncio.subprocess import Process as Running
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import structlog

from services.kit import aio
from services.kit.errors import ZetaError
from zeta_client.fleet.processes import Process

log = structlog.get_logger()

CONFIG_EXIT = 2
"""How a process says that its configuration is wrong."""
_TAIL_BYTES = 8192
_TAIL_LINES = 12

UntilServing = Callable[[str], Awaitable[None]]
"""Returns when the server at an address serves."""


class StartFailedError(ZetaError):
    """A process of the fleet cannot start; the message ends with its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before a process is started again."""

    first_s: float = 0.2
    most_s: float = 10.0
    forgiven_after_s: float = 10.0
    """A process that lived this long starts from `first_s` again."""
    start_attempts: int = 3
    """Ends before the fleet was ready that make the start fail."""

    def delay_s(self, failures: int, rng: Random) -> float:
        """Return the pause after *failures* ends in a row (from 1): equal-jitter exponential."""
        longest = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 32))
        return longest * rng.uniform(0.5, 1.0)


@dataclass(slots=True, kw_only=True)
class _Child:
    """One process and what has become of it; only its keeper changes it."""

    process: Process
    log: Path
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is to end."""
    running: Running | None = None
    log_start: int = 0
    """Where in the log the present run begins."""
    ends: int = 0
    serving: bool = False


class Supervisor:
    """The processes of a fleet, as an async context: inside, they run; after it, none does."""

    def __init__(
        self,
        processes: Sequence[Process],
        *,
        logs: Path,
        until_serving: UntilServing,
        grace_s: float,
        backoff: Backoff | None = None,
        rng: Random | None = None,
    ) -> None:
        self._children = [_Child(process=p, log=logs / f"{p.name}.log") for p in processes]
        self._until_serving, self._grace_s = until_serving, grace_s
        self._backoff, self._rng = backoff or Backoff(), rng or Random()  # noqa: S311 - jitter
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._was_ready = False

    async def __aenter__(self) -> Self:
        """Start every process at once."""
        for child in self._children:
            _rotate(child.log)
            self._keepers[child.process.name] = asyncio.create_task(self._keep(child))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every process, whatever happened inside."""
        try:
            await self.stop()
        finally:
            self._kill_all()

    async def ready(
        self, *, timeout_s: float, on_serving: Callable[[str], None] | None = None
    ) -> None:
        """Wait until every server serves; *on_serving* hears of each. Raises StartFailedError."""
        probing = asyncio.create_task(self._all_serve(on_serving or (lambda _name: None)))
        try:
            async with asyncio.timeout(timeout_s):
                await _first({probing, *self._keepers.values()})
        except TimeoutError:
            late = [c for c in self._children if c.process.address and not c.serving]
            names = ", ".join(c.process.name for c in late)
            raise StartFailedError(
                f"not ready after {timeout_s:g} s: {names}\n{_last_words(late[0])}"
            ) from None
        finally:
            await aio.cancelled(probing)
        self._was_ready = True

    async def ended(self) -> None:
        """Wait until a process can no longer be kept alive, and raise why."""
        await _first(set(self._keepers.values()))

    async def stop(self) -> None:
        """Stop every process: SIGTERM, the grace period, SIGKILL; lower `stopped_in` first."""
        for turn in sorted({c.process.stopped_in for c in self._children}):
            named = [c for c in self._children if c.process.stopped_in == turn]
            for child in named:
                child.told.set()
            await asyncio.gather(
                *(self._keepers[c.process.name] for c in named), return_exceptions=True
            )

    def pid(self, name: str) -> int | None:
        """Return the process id of the process called *name*, None while it does not run."""
        child = next(c for c in self._children if c.process.name == name)
        return child.running.pid if child.running else None

    async def _keep(self, child: _Child) -> None:
        failures, loop = 0, asyncio.get_running_loop()
        while not child.told.is_set():
            started_s = loop.time()
            code = await self._run_once(child)
            if child.told.is_set():
                return
            child.ends, child.serving = child.ends + 1, False
            self._check_start(child, code)
            lived = loop.time() - started_s >= self._backoff.forgiven_after_s
            failures = 1 if lived else failures + 1
            pause_s = self._backoff.delay_s(failures, self._rng)
            log.warning(
                "process ended, starting it again",
                name=child.process.name,
                end=_cause(code),
                after_s=round(pause_s, 2),
                log=str(child.log),
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(child.told.wait(), pause_s)

    async def _run_once(self, child: _Child) -> int:
        """Run the process until it ends by itself or because it is told to."""
        child.running = running = await _spawn(child)
        ended, told = asyncio.create_task(running.wait()), asyncio.create_task(child.told.wait())
        try:
            await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._end(child, ended)
            return await ended
        finally:
            await aio.cancelled(told)
            child.running = None if ended.done() else running

    async def _end(self, child: _Child, ended: asyncio.Task[int]) -> None:
        assert child.running is not None
        with suppress(ProcessLookupError):
            child.running.terminate()
        await asyncio.wait({ended}, timeout=self._grace_s)
        if not ended.done():
            log.warning("process did not stop in time, killed", name=child.process.name)
            _kill(child.running.pid)

    def _check_start(self, child: _Child, code: int) -> None:
        if self._was_ready:
            return
        if code == CONFIG_EXIT or child.ends >= self._backoff.start_attempts:
            raise StartFailedError(f"{child.process.name} {_cause(code)}\n{_last_words(child)}")

    async def _all_serve(self, on_serving: Callable[[str], None]) -> None:
        async def serves(child: _Child) -> None:
            await self._until_serving(child.process.address)
            child.serving = True
            on_serving(child.process.name)

        await aio.all_of(*(serves(c) for c in self._children if c.process.address))

    def _kill_all(self) -> None:
        for child in self._children:
            if child.running is not None and child.running.returncode is None:
                _kill(child.running.pid)


async def _spawn(child: _Child) -> Running:
    child.log.parent.mkdir(parents=True, exist_ok=True)
    with child.log.open("ab") as out:
        child.log_start = out.tell()
        return await asyncio.create_subprocess_exec(
            *child.process.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={
                **os.environ,
                **child.process.environment,
                "ZETA_SUPERVISOR": str(os.getpid()),
            },
        )


async def _first(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for the first of *tasks* to end, and raise what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _rotate(file: Path) -> None:
    """Keep the log of the start before this one beside it."""
    if file.exists():
        file.replace(file.with_suffix(".log.1"))


def _last_words(child: _Child) -> str:
    """Return the last lines of the present run's log, and where the whole of it is."""
    text = b""
    with suppress(OSError), child.log.open("rb") as lines:
        size = lines.seek(0, os.SEEK_END)
        lines.seek(max(child.log_start, size - _TAIL_BYTES))
        text = lines.read()
    tail = text.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    return "\n".join([*(f"  {line}" for line in tail), f"its log: {child.log}"])


def _cause(code: int) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return "refused its configuration" if code == CONFIG_EXIT else f"ended with exit code {code}"


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
