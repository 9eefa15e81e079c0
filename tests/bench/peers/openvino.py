"""OpenVINO GenAI: continuous batching with a paged cache, computing in float32 as we do.

Runs in an interpreter of its own; `build` needs optimum-intel and nncf there.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

from tests.bench.peers import workload
from tests.bench.peers.workload import Arrival, Clock, Served


class OpenVino:
    """As `workload.Peer`."""

    versions = f"openvino-genai {openvino_genai.__version__}"

    def __init__(self, folder: Path, threads: int, context_tokens: int) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = workload.REQUESTS
        scheduler.max_num_batched_tokens = 128
        scheduler.num_kv_blocks = workload.REQUESTS * context_tokens // 32 + 1
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(folder), scheduler, "CPU",
            {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"},
        )  # fmt: skip
        self._last_id = 0

    def decode(self, prompt: NDArray[np.int64], steps: int) -> float:
        """As `workload.Peer`."""
        handle = self._ask(prompt, steps + 1)
        while not handle.can_read():
            self._pipeline.step()
        start = perf_counter()
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival], clock: Clock) -> list[Served]:
        """As `workload.Peer`."""
        found, handles = [Served() for _ in arrivals], list[Any]()
        while len(handles) < len(arrivals) or self._pipeline.has_non_finished_requests():
            while len(handles) < len(arrivals) and arrivals[len(handles)].at_s <= clock.now_s():
                new = arrivals[len(handles)]
                handles.append(self._ask(new.tokens, new.max_tokens))
            if not self._pipeline.has_non_finished_requests():
                sleep(max(arrivals[len(handles)].at_s - clock.now_s(), 0))
                continue
            self._pipeline.step()
            now_s = clock.now_s()
            for arrival, handle, one in zip(arrivals, handles, found, strict=False):
                while handle.can_read():
                    one.tokens += sum(len(o.generated_ids) for o in handle.read().values())
                    one.last_s = now_s - arrival.at_s
                    one.first_s = one.first_s or one.last_s
        return found

    def _ask(self, prompt: NDArray[np.int64], tokens: int) -> Any:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        self._last_id += 1
        ids = openvino.Tensor(np.ascontiguousarray(prompt[None]))
        return self._pipeline.add_request(self._last_id, ids, config)


def build(source: Path, target: Path, precision: str) -> None:
    """Convert a Hugging Face directory, as block-wise as ours."""
    import nncf  # noqa: PLC0415 - only conversion needs these
    from optimum.exporters.openvino import main_export  # noqa: PLC0415

    main_export(
        str(source), str(target), task="text-generation-with-past", library_name="transformers",
        stateful=True, convert_tokenizer=False,
    )  # fmt: skip
    if precision == "int4":
        path, small = target / "openvino_model.xml", target / "small"
        small.mkdir()
        model = nncf.compress_weights(
            openvino.Core().read_model(path),
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=32,
            all_layers=True,
        )
        openvino.save_model(model, small / path.name, compress_to_fp16=False)
        del model
        for file in small.iterdir():
            shutil.move(file, target / file.name)
        small.rmdir()


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        workload.main(OpenVino)
