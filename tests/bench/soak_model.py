"""One model server for a long time, under whatever callers do.

    python -m tests.bench.soak_model DIR [--minutes 30] [--per-s 0.5] [--threads 1] [--seed 7]

Starts a server of the model in DIR and keeps asking: answers of all lengths and priorities, sampled
and greedy, with stop strings, log-probabilities, constraints, common beginnings, scores; callers
that leave, deadlines that pass, requests that are wrong, and limits that change. At the end nothing
may be left: no running or waiting request, no cache token in use, and as many streams at once as
there are slots must be answered. Memory is the process's own, unique set size; its plateau is the
median over the second third of the time, which the last third's median must be within 5 % of.
Exit code 1 where that does not hold.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import grpc
import numpy as np
import psutil
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.model.v1 import model_control_service_pb2 as control
from zeta.model.v1 import model_control_service_pb2_grpc as control_grpc

from services.kit import config as kit_config
from services.kit.channel import open_channel
from services.kit.config import Fleet, FleetConfig, Model, Replica, Server
from services.kit.rpc import zeta_error

SLOTS, CONTEXT_TOKENS = 16, 1024
NEAR = 0.05
"""How far memory may be from its plateau."""
_EVERY_S = 1.0
_SETTLES_S = 10.0
_WORDS = ("the", "model", "answers", "what", "was", "asked", "as", "well", "as", "it", "can")
_SYSTEM = " ".join(_WORDS * 8)


@dataclass(slots=True)
class Seen:
    """What happened."""

    ends: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, and MB."""


class Callers:
    """Everybody who calls. *rng* decides what they do."""

    def __init__(self, channel: grpc.aio.Channel, rng: np.random.Generator, seen: Seen) -> None:
        self.answers: Any = inference_grpc.InferenceServiceStub(channel)
        self.control: Any = control_grpc.ModelControlServiceStub(channel)
        self._rng, self._seen = rng, seen

    async def one(self) -> None:
        """Make one call of some kind."""
        kind = self._rng.choice(("ask", "leave", "late", "wrong", "score", "shrink"), p=_KINDS)
        try:
            await getattr(self, kind)()
            self._seen.ends[kind] += 1
        except grpc.aio.AioRpcError as failed:
            self._seen.ends[f"{kind}: {zeta_error(failed).reason}"] += 1

    async def ask(self, **changes: Any) -> None:
        """Read a whole answer."""
        async for event in self.answers.Generate(self.request(**changes), timeout=600.0):
            self._seen.tokens += len(event.delta.token_ids)
        assert event.HasField("finished"), "a stream without an end"

    async def leave(self) -> None:
        """Go away in the middle."""
        call = self.answers.Generate(self.request(max_tokens=400))
        with suppress(asyncio.CancelledError):
            for _ in range(int(self._rng.integers(0, 20))):
                if await call.read() is grpc.aio.EOF:
                    break
        call.cancel()

    async def late(self) -> None:
        """Have no time."""
        timeout_s = float(self._rng.uniform(0.0, 2.0))
        async for _ in self.answers.Generate(self.request(max_tokens=400), timeout=timeout_s):
            pass

    async def wrong(self) -> None:
        """Ask what cannot be answered."""
        changes = _WRONG[int(self._rng.integers(len(_WRONG)))]
        async for _ in self.answers.Generate(self.request(**changes), timeout=60.0):
            pass

    async def score(self) -> None:
        """Compare continuations."""
        request = inference.ScoreRequest(
            prompt=self._words(60), continuations=["yes", "no, not so"]
        )
        await self.answers.Score(request, timeout=600.0)

    async def shrink(self) -> None:
        """Take half of the slots away for a moment, and give them back."""
        for running in (SLOTS // 2, SLOTS):
            allocation = control.Allocation(max_running=running)
            await self.control.SetAllocation(control.SetAllocationRequest(allocation=allocation))
            await asyncio.sleep(float(self._rng.uniform(0.0, 1.0)))

    def request(self, **changes: Any) -> inference.GenerateRequest:
        """Make a request of some kind."""
        rng = self._rng
        shared = f"{_SYSTEM} " if rng.random() < 0.5 else ""
        fields: dict[str, Any] = {
            "prompt": shared + self._words(int(rng.integers(1, 200))),
            "max_tokens": int(rng.integers(1, 120)),
            "priority": int(rng.integers(0, 4)),
            "stop": ["zz"] if rng.random() < 0.2 else [],
            "sampling": inference.SamplingParams(
                temperature=float(rng.choice((0.0, 0.7, 1.3))),
                top_p=float(rng.choice((1.0, 0.9))),
                frequency_penalty=float(rng.choice((0.0, 0.4))),
            ),
        }
        if rng.random() < 0.2:
            fields["logprobs"] = inference.LogprobParams(top=5)
        if rng.random() < 0.1:
            choice = inference.Choice(options=["yes", "no"])
            fields["constraint"] = inference.OutputConstraint(choice=choice)
        return inference.GenerateRequest(**(fields | changes))

    def _words(self, count: int) -> str:
        return " ".join(self._rng.choice(_WORDS, count))


_KINDS = (0.6, 0.15, 0.08, 0.1, 0.06, 0.01)
_WRONG: tuple[dict[str, Any], ...] = (
    {"prompt": ""},
    {"max_tokens": 0},
    {"model": "nobody"},
    {"stop": [""]},
    {"prompt": "word " * 4000},
    {"sampling": inference.SamplingParams(temperature=9.0)},
    {"constraint": inference.OutputConstraint(regex="(")},
    {"constraint": inference.OutputConstraint(json_schema="[]")},
)


async def soak(process: psutil.Process, target: str, its: argparse.Namespace) -> bool:
    """Call for the whole time, then look at what is left."""
    seen, rng, start_s = Seen(), np.random.default_rng(its.seed), monotonic()
    async with open_channel(target, Server()) as channel:
        await channel.channel_ready()
        callers = Callers(channel, rng, seen)
        watching = asyncio.create_task(_watch(process, seen, start_s))
        calls: set[asyncio.Task[None]] = set()
        while monotonic() - start_s < its.minutes * 60:
            call = asyncio.create_task(callers.one())
            calls.add(call)
            call.add_done_callback(calls.discard)
            await asyncio.sleep(float(rng.exponential(1 / its.per_s)))
        await asyncio.gather(*calls)
        watching.cancel()
        state = await _settled(callers)
        together = [callers.ask(max_tokens=32, constraint=None) for _ in range(SLOTS)]
        await asyncio.wait_for(asyncio.gather(*together), 600.0)
    return _report(seen, state)


async def _settled(callers: Callers) -> control.ModelState:
    """Return what is left a little after the last caller has gone: they leave between two steps."""
    ends_s = monotonic() + _SETTLES_S
    while True:
        answer = await callers.control.GetState(control.GetStateRequest())
        state: control.ModelState = answer.state
        if not (state.running or state.waiting) or monotonic() > ends_s:
            return state
        await asyncio.sleep(0.2)


async def _watch(process: psutil.Process, seen: Seen, start_s: float) -> None:
    while True:
        now_s = monotonic() - start_s
        seen.memory.append((now_s, process.memory_full_info().uss / 1e6))
        if len(seen.memory) % 120 == 0:
            mb, calls = seen.memory[-1][1], sum(seen.ends.values())
            print(f"{now_s / 60:6.1f} min {mb:8.0f} MB {calls:6} calls {seen.tokens:8} tokens")
        await asyncio.sleep(_EVERY_S)


def _report(seen: Seen, state: control.ModelState) -> bool:
    third = len(seen.memory) // 3
    plateau = median(mb for _, mb in seen.memory[third : 2 * third])
    end = median(mb for _, mb in seen.memory[2 * third :])
    held = {
        "running": state.running,
        "waiting": state.waiting,
        "kv_used_tokens": state.kv_used_tokens,
    }
    print(json.dumps(dict(sorted(seen.ends.items())), indent=2))
    print(f"{seen.tokens} tokens; left behind: {held}; {SLOTS} streams at once were answered")
    peak = max(mb for _, mb in seen.memory)
    print(f"memory: plateau {plateau:.0f} MB, at the end {end:.0f} MB, at most {peak:.0f} MB")
    return not any(held.values()) and abs(end - plateau) <= NEAR * plateau


def main() -> None:
    """Start, soak, stop, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--per-s", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    its = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        target, file = f"unix:{place}/model", Path(place) / "fleet.toml"
        model = Model(
            name="soaked",
            dir=str(its.folder.resolve()),
            max_running=SLOTS,
            context_tokens=CONTEXT_TOKENS,
            threads=its.threads,
            replicas=(Replica(listen=target),),
        )
        fleet = Fleet(state_dir=place, log_level="error")
        file.write_bytes(kit_config.dump(FleetConfig(fleet=fleet, models=(model,))))
        command = (sys.executable, "-m", "services.model", "--config", str(file))
        # However this one ends, its server does not outlive it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        watching = {**os.environ, "ZETA_SUPERVISOR": str(os.getpid())}
        with subprocess.Popen((*command, "--model", "soaked"), env=watching) as server:
            try:
                well = asyncio.run(soak(psutil.Process(server.pid), target, its))
            finally:
                server.send_signal(signal.SIGTERM)
    sys.exit(not well)


if __name__ == "__main__":
    main()
