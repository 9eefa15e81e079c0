"""Our engine, in this process, without a service around it."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from numpy.typing import NDArray

from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request
from services.model.graph import runnable
from tests.bench.peers import workload
from tests.bench.peers.workload import Arrival, Clock, Served

_CHUNK_TOKENS = 128
"""As a model process feeds prompts by default."""


class Zeta:
    """As `workload.Peer`."""

    versions = f"zeta on onnxruntime {version('onnxruntime')}"

    def __init__(self, folder: Path, threads: int, context_tokens: int) -> None:
        stored = runnable.load(folder)
        backend = OrtBackend(
            stored.graph, stored.shape, slots=workload.REQUESTS, context_tokens=context_tokens,
            threads=threads,
        )  # fmt: skip
        most = workload.REQUESTS * context_tokens
        limits = Limits(max_running=workload.REQUESTS, kv_tokens=most, chunk_tokens=_CHUNK_TOKENS)
        self._engine = Engine(backend, limits)

    def decode(self, prompt: NDArray[np.int64], steps: int) -> float:
        """As `workload.Peer`."""
        engine = self._engine
        engine.add(Request(id=-1, tokens=prompt, max_tokens=steps + 1))
        while not engine.step().generated:
            pass
        start = perf_counter()
        while not engine.idle:
            engine.step()
        return perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival], clock: Clock) -> list[Served]:
        """As `workload.Peer`."""
        engine, found, begun = self._engine, [Served() for _ in arrivals], 0
        while begun < len(arrivals) or not engine.idle:
            while begun < len(arrivals) and arrivals[begun].at_s <= clock.now_s():
                new = arrivals[begun]
                engine.add(Request(id=begun, tokens=new.tokens, max_tokens=new.max_tokens))
                begun += 1
            if engine.idle:
                sleep(max(arrivals[begun].at_s - clock.now_s(), 0))
                continue
            for out in engine.step().outputs:
                if isinstance(out, Generated):
                    one = found[out.id]
                    one.tokens += 1
                    one.last_s = clock.now_s() - arrivals[out.id].at_s
                    one.first_s = one.first_s or one.last_s
        return found


if __name__ == "__main__":
    workload.main(Zeta)
