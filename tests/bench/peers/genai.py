"""onnxruntime-genai: static batches, since on processors it knows no others.

What waits when a batch ends runs as the next one, padded to its longest prompt, until its longest
answer is whole. Runs in an interpreter of its own; `build` needs PyTorch and transformers there.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import onnxruntime_genai
from numpy.typing import NDArray

from tests.bench.peers import workload
from tests.bench.peers.workload import Arrival, Clock, Served


class Genai:
    """As `workload.Peer`."""

    versions = f"onnxruntime-genai {onnxruntime_genai.__version__}"

    def __init__(self, folder: Path, threads: int, context_tokens: int) -> None:
        del context_tokens
        config = onnxruntime_genai.Config(str(folder))
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)
        stored = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self._padding = stored["model"]["pad_token_id"]

    def decode(self, prompt: NDArray[np.int64], steps: int) -> float:
        """As `workload.Peer`."""
        generator = self._generator(1, len(prompt) + steps + 1)
        generator.append_tokens(prompt[None].astype(np.int32))
        generator.generate_next_token()
        start = perf_counter()
        for _ in range(steps):
            generator.generate_next_token()
        return perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival], clock: Clock) -> list[Served]:
        """As `workload.Peer`."""
        found, begun = [Served() for _ in arrivals], 0
        while begun < len(arrivals):
            sleep(max(arrivals[begun].at_s - clock.now_s(), 0))
            now_s = clock.now_s()
            stop = max(begun + 1, sum(a.at_s <= now_s for a in arrivals))
            self._batch(arrivals[begun:stop], found[begun:stop], clock)
            begun = stop
        return found

    def _batch(self, batch: Sequence[Arrival], found: Sequence[Served], clock: Clock) -> None:
        longest = max(len(a.tokens) for a in batch)
        steps = max(a.max_tokens for a in batch)
        generator = self._generator(len(batch), longest + steps)
        padded = np.full((len(batch), longest), self._padding, np.int32)
        for row, one in zip(padded, batch, strict=True):
            row[longest - len(one.tokens) :] = one.tokens
        generator.append_tokens(padded)
        for step in range(steps):
            generator.generate_next_token()
            now_s = clock.now_s()
            for one, served in zip(batch, found, strict=True):
                if step < one.max_tokens:
                    served.tokens += 1
                    served.last_s = now_s - one.at_s
                    served.first_s = served.first_s or served.last_s

    def _generator(self, rows: int, tokens: int) -> "onnxruntime_genai.Generator":
        params = onnxruntime_genai.GeneratorParams(self._model)
        # As many tokens as asked for, whatever random weights take for an end.
        params.set_search_options(
            batch_size=rows, max_length=tokens, min_length=tokens, do_sample=False
        )
        return onnxruntime_genai.Generator(self._model, params)


def build(source: Path, target: Path, precision: str) -> None:
    """Convert a Hugging Face directory with the package's own builder, as block-wise as ours."""
    builder = resources.files("onnxruntime_genai") / "models" / "builder.py"
    options = ["int4_accuracy_level=4", "int4_block_size=32"] if precision == "int4" else []
    command = [
        sys.executable, str(builder), "-m", str(source), "-i", str(source), "-o", str(target),
        "-p", precision, "-e", "cpu", "-c", str(target / "cache"),
        *(["--extra_options", *options] if options else []),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        workload.main(Genai)
