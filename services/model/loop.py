"""The device thread, which owns the engine, and its asyncio side, which owns the streams.

Commands reach the thread through an inbox and take effect between two steps; each step's outcome
comes back in one call on the event loop, which feeds a stream per request. A reader that is slower
than the device finds several tokens at once.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic

import structlog

from services.kit.errors import (
    DeadlinePassedError,
    DrainingError,
    OverloadedError,
    StreamBrokenError,
    UnavailableError,
    ZetaError,
    invalid,
)
from services.model.engine.engine import Engine
from services.model.engine.types import Answered, Failed, Limits, Occupancy, Request, StepResult
from services.model.state import State, Times

log = structlog.get_logger()

Command = Callable[[Engine], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one turn of the device thread did."""

    result: StepResult | None
    expired: list[int]
    occupancy: Occupancy
    began_s: float
    ended_s: float


class Stream:
    """The outputs of one request, and when they came."""

    def __init__(
        self, request: Request, arrived_s: float, news: asyncio.Event | None = None
    ) -> None:
        self.request = request
        self.arrived_s = arrived_s
        self.began_s: float | None = None
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.reused_tokens = 0
        """Prompt tokens that were in the cache already."""
        self._outputs: list[Answered] = []
        self._error: ZetaError | None = None
        self.news = news or asyncio.Event()
        """Set while there is something to take; several streams may share it."""

    async def take(self) -> list[Answered]:
        """Wait for outputs and return all there are. Raises the error that ended the request."""
        while not (self._outputs or self._error):
            await self.news.wait()
            self.news.clear()
        return self.taken()

    def taken(self) -> list[Answered]:
        """Return the outputs there are, maybe none. Raises the error that ended the request."""
        if self._error:
            # It is still to be raised, now or the next time.
            self.news.set()
        if not self._outputs and self._error:
            raise self._error
        outputs, self._outputs = self._outputs, []
        return outputs

    def times(self) -> Times:
        """Return the times of a request that was answered."""
        assert self.began_s is not None, "an answer without a step"
        assert self.first_s is not None
        assert self.last_s is not None
        since = self.arrived_s
        return Times(
            began_s=self.began_s - since, first_s=self.first_s - since, last_s=self.last_s - since
        )

    def push(self, output: Answered, at_s: float) -> None:
        """Add an output."""
        self.first_s = self.first_s or at_s
        self.last_s = at_s
        self._outputs.append(output)
        self.news.set()

    def fail(self, error: ZetaError) -> None:
        """End the stream with *error*, after what it holds is taken."""
        self._error = error
        self.news.set()


class DeviceLoop:
    """Runs an engine in a thread of its own."""

    def __init__(self, engine: Engine, state: State, *, max_waiting: int, drain_s: float) -> None:
        self.state = state
        self.limits = engine.limits
        self.occupancy = Occupancy()
        self.draining = False
        self.crashed = asyncio.Event()
        self.on_preempted: Callable[[int], object] = lambda _: None
        """Told how many requests had to give up their slots."""
        self._engine, self._max_waiting, self._drain_s = engine, max_waiting, drain_s
        self._inbox: SimpleQueue[Command | None] = SimpleQueue()
        self._streams: dict[int, Stream] = {}
        self._ended = asyncio.Event()
        self._events = asyncio.get_running_loop()
        self._last_id = 0
        # A daemon, since a hung device must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def next_id(self) -> int:
        """Return a number for a request; earlier ones go first within a rank."""
        self._last_id += 1
        return self._last_id

    def submit(self, request: Request, arrived_s: float) -> Stream:
        """Queue *request*. Raises DrainingError, OverloadedError or UnavailableError."""
        return self.submit_all([request], arrived_s)[0]

    def submit_all(self, requests: Sequence[Request], arrived_s: float) -> list[Stream]:
        """Queue *requests* together, or none of them; their streams share their news.

        Raises as `submit`.
        """
        self._admit(len(requests))
        news = asyncio.Event()
        streams = [Stream(request, arrived_s, news) for request in requests]
        self._streams |= {stream.request.id: stream for stream in streams}

        def add(engine: Engine) -> None:
            for request in requests:
                engine.add(request)

        # One command: no step comes between those that can share a prompt.
        self._inbox.put(add)
        return streams

    def cancel(self, request_id: int) -> None:
        """Stop working on a request before the next step; nothing happens where it has ended."""
        if self._streams.pop(request_id, None):
            self._ended.set()
            self._inbox.put(lambda engine: engine.cancel(request_id))

    def waiting(self) -> list[Request]:
        """Return the requests that have no slot: not yet, or not any more."""
        preempted = self.occupancy.preempted
        return [
            s.request
            for s in self._streams.values()
            if s.began_s is None or s.request.id in preempted
        ]

    def allocate(self, limits: Limits) -> None:
        """Set how much may run, from the next step on; what is too much then waits again."""
        self.limits = limits
        self._inbox.put(lambda engine: setattr(engine, "limits", limits))

    async def drain(self, grace_s: float | None) -> tuple[int, int]:
        """Take nothing new and wait for the rest; return how many finished and were cut off."""
        self.draining = True
        pending = len(self._streams)
        try:
            async with asyncio.timeout(grace_s):
                while self._streams:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            log.warning("drain cut requests off", requests=len(self._streams))
        cut = len(self._streams)
        self._fail_all(self._draining_error)
        return max(pending - cut, 0), cut

    def close(self) -> None:
        """Stop the thread after its present step; requests still there end with DrainingError."""
        self.draining = True
        self._fail_all(self._draining_error)
        self._inbox.put(None)
        self._thread.join(timeout=10)

    def _admit(self, count: int) -> None:
        if self.crashed.is_set():
            raise UnavailableError("the model's device failed; this process ends", retry_after_s=1)
        if self.draining:
            raise self._draining_error()
        in_flight, running = len(self._streams), self.limits.max_running
        if in_flight + count > running + self._max_waiting:
            more = "" if count == 1 else f"; {count} more do not fit"
            raise OverloadedError(
                f"{in_flight} requests run or wait of {running + self._max_waiting}, "
                f"the most that this server takes{more}",
                retry_after_s=self.state.free_slot_in_s(running),
            )

    def _draining_error(self) -> DrainingError:
        return DrainingError("this server is draining", retry_after_s=self._drain_s)

    def _fail_all(self, error: Callable[[], ZetaError]) -> None:
        """End every request with an error of its own."""
        for request_id, stream in list(self._streams.items()):
            self.cancel(request_id)
            stream.fail(error())

    # The device thread from here on.

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - whatever it was, nobody may wait for ever
            self._post(self._on_crash, error)

    def _turn(self) -> bool:
        """Obey the inbox, run one step, report; False when told to stop."""
        commands = self._commands()
        for command in commands:
            if command is None:
                return False
            command(self._engine)
        began_s = monotonic()
        expired = self._engine.expire(began_s)
        result = None if self._engine.idle else self._engine.step()
        report = Report(
            result=result, expired=expired, occupancy=self._engine.occupancy(),
            began_s=began_s, ended_s=monotonic(),
        )  # fmt: skip
        self._post(self._on_report, report)
        return True

    def _commands(self) -> list[Command | None]:
        """Everything in the inbox; where there is no other work, wait for something."""
        commands = [self._inbox.get()] if self._engine.idle else []
        while True:
            try:
                commands.append(self._inbox.get_nowait())
            except Empty:
                return commands

    def _post(self, callback: Callable[..., None], value: object) -> None:
        try:
            self._events.call_soon_threadsafe(callback, value)
        except RuntimeError:
            # The event loop has ended: nobody is left to be told.
            log.debug("device thread outlived the event loop")

    # The event loop again.

    def _on_report(self, report: Report) -> None:
        self.occupancy = report.occupancy
        if report.result:
            self._on_step(report.result, report)
        for request_id in report.expired:
            if stream := self._streams.pop(request_id, None):
                stream.fail(DeadlinePassedError("the deadline passed while the model worked"))
        if not self._streams or report.expired:
            self._ended.set()

    def _on_step(self, result: StepResult, report: Report) -> None:
        for request_id, reused_tokens in result.began.items():
            if stream := self._streams.get(request_id):
                stream.began_s, stream.reused_tokens = report.began_s, reused_tokens
        for output in result.outputs:
            if stream := self._streams.get(output.id):
                if isinstance(output, Failed):
                    stream.fail(invalid("constraint", output.reason))
                else:
                    stream.push(output, report.ended_s)
                if output.ends:
                    del self._streams[output.id]
        if result.preempted:
            self.on_preempted(result.preempted)
        self.state.stepped(
            prompt_tokens=result.prompt_tokens,
            generated=result.generated,
            decoded=bool(result.decoded_rows),
            took_s=report.ended_s - report.began_s,
            now_s=report.ended_s,
        )

    def _on_crash(self, error: BaseException) -> None:
        log.critical("device thread failed", exc_info=error)
        self.crashed.set()
        self._fail_all(lambda: StreamBrokenError("the model's device failed", retry_after_s=1))
