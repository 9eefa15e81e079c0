"""The laws of every backend, on TensorRT."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.kit.config import TensorRT
from services.model.backends.base import Backend
from services.model.backends.trt import open as tensorrt
from services.model.backends.trt.open import Source
from services.model.graph import runnable
from tests.laws.test_backends import (
    SLOTS,
    test_a_beginning_is_lent_without_a_trace,
    test_a_copied_sequence_goes_on_in_its_new_slot,
    test_a_prompt_in_pieces_gives_the_logits_of_the_whole,
    test_a_row_of_a_batch_is_the_sequence_alone,
    test_a_slot_is_reused_without_a_trace,
    test_a_step_leaves_the_other_slots_alone,
    test_decoding_gives_the_logits_of_prefilling,
    test_swapped_sequences_go_on_in_each_others_slots,
)
from tests.unit.services.model import tiny

if TYPE_CHECKING:
    from services.model.backends.trt.maker import TensorRTMaker

__all__ = [
    "test_a_beginning_is_lent_without_a_trace",
    "test_a_copied_sequence_goes_on_in_its_new_slot",
    "test_a_prompt_in_pieces_gives_the_logits_of_the_whole",
    "test_a_row_of_a_batch_is_the_sequence_alone",
    "test_a_slot_is_reused_without_a_trace",
    "test_a_step_leaves_the_other_slots_alone",
    "test_decoding_gives_the_logits_of_prefilling",
    "test_swapped_sequences_go_on_in_each_others_slots",
]


@pytest.fixture(scope="module")
def plan_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for all laws."""
    return tmp_path_factory.mktemp("plans")


@pytest.fixture
def tolerance() -> float:
    """Steps of different sizes run different kernels, which add up in another order."""
    return 1e-4


@pytest.fixture
def backend(maker: "TensorRTMaker", tmp_path: Path, plan_dir: Path) -> Backend:
    """TensorRT, empty."""
    folder = tiny.write(tmp_path)
    stored = runnable.load(folder, "trt")
    source = Source(stored=stored, folder=folder, slots=SLOTS, context_tokens=64, chunk_tokens=16)
    return tensorrt.place(maker, source, TensorRT(plan_dir=str(plan_dir)), lambda *_: None)
