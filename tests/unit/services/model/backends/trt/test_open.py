"""From a model directory to a backend, on a card that is this processor."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.kit.config import TensorRT
from services.kit.errors import ConfigError
from services.model import importer
from services.model.backends.ort import OrtBackend
from services.model.backends.trt import open as tensorrt
from services.model.backends.trt import plans
from services.model.backends.trt.backend import TensorRTBackend
from services.model.backends.trt.device import Built, Loaded, Progress, Task
from services.model.backends.trt.open import Source
from services.model.graph import runnable
from tests.unit.services.model import tiny
from tests.unit.services.model.backends.trt.processor import ProcessorMaker

PROMPT = np.arange(1, 20)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A model imported for TensorRT."""
    hf = tiny.write(tmp_path / "hf")
    importer.convert(hf, tmp_path / "model", "fp32", dialect="trt")
    return source_of(tmp_path / "model")


@pytest.fixture
def settings(tmp_path: Path) -> TensorRT:
    """Where plans are kept."""
    return TensorRT(plan_dir=str(tmp_path / "plans"))


def source_of(folder: Path) -> Source:
    """Serve the model in *folder* to four at once."""
    stored = runnable.load(folder, "trt")
    return Source(stored=stored, folder=folder, slots=4, context_tokens=64, chunk_tokens=16)


def placed(
    source: Source, settings: TensorRT, maker: ProcessorMaker | None = None
) -> tuple[TensorRTBackend, ProcessorMaker]:
    """Put *source* on a card."""
    maker = maker or ProcessorMaker()
    return tensorrt.place(maker, source, settings, lambda *_: None), maker


def test_an_imported_model_computes_what_its_checkpoint_does(
    source: Source, settings: TensorRT
) -> None:
    """Weights beside the graph are found, and the caches are of its type."""
    backend, _ = placed(source, settings)
    stored = runnable.load(source.folder.parent / "hf")
    expected = OrtBackend(stored.graph, stored.shape, slots=1, context_tokens=64, threads=1)
    np.testing.assert_allclose(
        backend.prefill(2, 0, PROMPT, 3), expected.prefill(0, 0, PROMPT, 3), atol=1e-4
    )


def test_a_checkpoint_needs_no_import(tmp_path: Path, settings: TensorRT) -> None:
    """A small one is converted at the start, its weights in the graph."""
    hf = tiny.write(tmp_path / "hf")
    backend, maker = placed(source_of(hf), settings)
    assert maker.built[0].folder is None
    assert backend.prefill(0, 0, PROMPT, 1).shape == (1, backend._capacity.vocabulary)


def test_a_plan_is_built_once(source: Source, settings: TensorRT) -> None:
    """The second start finds it; timings of the first build help the next."""
    first, maker = placed(source, settings)
    second, again = placed(source, settings)
    assert (len(maker.built), len(again.built)) == (1, 0)
    np.testing.assert_array_equal(first.prefill(0, 0, PROMPT, 1), second.prefill(0, 0, PROMPT, 1))
    _, third = placed(replace(source, slots=2), settings)
    assert (bytes(maker.built[0].timings), bytes(third.built[0].timings)) == (b"", b"timed ")


def test_another_card_or_shape_needs_another_plan(source: Source, settings: TensorRT) -> None:
    """Whatever the plan was built for."""
    placed(source, settings)
    for changed, gpu in (
        (source, "another"),
        (replace(source, slots=3), "this processor"),
        (replace(source, context_tokens=80), "this processor"),
        (replace(source, chunk_tokens=8), "this processor"),
    ):
        _, maker = placed(changed, settings, ProcessorMaker(gpu))
        assert len(maker.built) == 1


def test_without_building_the_start_says_what_there_is(source: Source, settings: TensorRT) -> None:
    """The plan for another card is named, and the command."""
    placed(source, settings, ProcessorMaker("NVIDIA L4"))
    kept = TensorRT(plan_dir=settings.plan_dir, build=False)
    with pytest.raises(ConfigError, match=r"for NVIDIA H200 .*, but one for NVIDIA L4 ") as said:
        placed(source, kept, ProcessorMaker("NVIDIA H200"))
    assert "zeta model build" in str(said.value)


def test_a_stopped_build_leaves_nothing(source: Source, settings: TensorRT) -> None:
    """Neither plan nor timings; the next start builds."""

    class Stopped(ProcessorMaker):
        def build(self, task: Task, progress: Progress) -> Built:
            super().build(task, progress)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        placed(source, settings, Stopped())
    assert not [p for p in Path(settings.plan_dir).iterdir() if p.suffix != ".lock"]
    _, maker = placed(source, settings)
    assert len(maker.built) == 1


def test_a_broken_plan_is_refused_not_loaded(source: Source, settings: TensorRT) -> None:
    """A changed byte is found before TensorRT sees it."""
    placed(source, settings)
    (path,) = Path(settings.plan_dir).glob("*.plan")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cut off or changed; delete the file"):
        placed(source, settings)


def test_a_small_card_says_what_to_lower(source: Source, settings: TensorRT) -> None:
    """Before anything is built."""
    maker = ProcessorMaker(size_bytes=1 << 20)
    with pytest.raises(ConfigError, match="the GPU's memory is too small: weights take"):
        placed(source, settings, maker)
    assert not maker.built


def test_memory_that_runs_out_at_the_end_says_what_to_lower(
    source: Source, settings: TensorRT
) -> None:
    """TensorRT takes more than was foreseen: a sentence with figures all the same."""

    class Greedy(ProcessorMaker):
        def load(self, content: memoryview, room_bytes: int) -> Loaded:
            loaded = super().load(content, room_bytes)
            self.device.allocate(self.free_bytes())
            return loaded

    with pytest.raises(ConfigError, match="GiB are free; lower max_running to"):
        placed(source, settings, Greedy())


def test_bf16_on_an_old_card_is_refused(source: Source, settings: TensorRT) -> None:
    """The card and what to do are named."""

    class Old(ProcessorMaker):
        def about(self) -> plans.Card:
            return plans.Card(gpu="NVIDIA T4", capability="7.5", tensorrt="11.4", cuda=13)

    stored = replace(source.stored, precision="bf16")
    with pytest.raises(ConfigError, match=r"T4 \(compute capability 7.5\).*--precision fp16"):
        placed(replace(source, stored=stored), settings, Old())


def test_without_tensorrt_the_command_is_named(
    source: Source, settings: TensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, wherever the import fails."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConfigError, match=r"pip install 'zeta\[tensorrt\]'"):
        tensorrt.load(source, settings)
