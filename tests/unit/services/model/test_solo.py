"""One generation, and timing, without a service."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.kit.errors import InvalidRequestError
from services.model import solo, speed
from tests.unit.services.model import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model."""
    return tiny.write(tmp_path)


def test_an_answer_comes_in_pieces_that_make_the_whole(folder: Path) -> None:
    """The text that is shown is the text that is returned."""
    pieces: list[str] = []
    asked = solo.Asked(prompt="Hi", max_tokens=12, temperature=0.0)
    found = solo.generate(folder, asked, on_text=pieces.append)
    assert "".join(pieces) == found.text
    assert 1 <= len(found.token_ids) <= 12
    assert found.finish_reason == ("length" if len(found.token_ids) == 12 else "stop")
    assert found.tokens_per_s > 0


def test_a_prompt_is_a_message_unless_it_is_raw(folder: Path) -> None:
    """The chat template is what an instructed model was trained with."""
    raw = solo.generate(folder, solo.Asked(prompt="Hi", raw=True, max_tokens=1))
    assert raw.prompt_token_ids == tiny.byte_tokenizer().encode("Hi").ids
    chat = solo.generate(folder, solo.Asked(prompt="Hi", max_tokens=1))
    assert len(chat.prompt_token_ids) > len("<|im_start|>user")


def test_sampling_repeats_with_its_seed(folder: Path) -> None:
    """Equal seeds, equal answers; another seed, another answer."""

    def answer(seed: int) -> list[int]:
        asked = solo.Asked(prompt="Hi", max_tokens=30, temperature=2.0, seed=seed)
        return solo.generate(folder, asked).token_ids

    assert answer(1) == answer(1) != answer(2)


def test_samples_are_answers_of_their_own(folder: Path) -> None:
    """The first is what is shown and what one sample gives; the others differ."""
    shown: list[str] = []
    asked = solo.Asked(prompt="Hi", max_tokens=20, temperature=2.0, seed=3, samples=3)
    found = solo.generate(folder, asked, on_text=shown.append)
    single = solo.generate(folder, replace(asked, samples=1))
    assert found.samples[0] == single.samples[0]
    assert "".join(shown) == found.text == found.samples[0].text
    assert len({tuple(sample.token_ids) for sample in found.samples}) == 3


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "holds no token"), ("x" * 90, "do not fit in 96 tokens")]
)
def test_a_prompt_that_cannot_be_answered_is_refused(
    folder: Path, prompt: str, message: str
) -> None:
    """With the reason."""
    with pytest.raises(InvalidRequestError, match=message):
        solo.generate(folder, solo.Asked(prompt=prompt, raw=True, max_tokens=20))


def test_every_batch_size_is_timed(folder: Path) -> None:
    """Rates are rates, and no share of the memory's limit is above it by much."""
    told: list[str] = []
    report = speed.bench(
        folder, batches=(1, 4), progress=lambda stage, _done, _total: told.append(stage)
    )
    assert told == ["memory", "batch 1", "batch 4"]
    assert [row.batch for row in report.speeds] == [1, 4]
    for row in report.speeds:
        assert row.prefill_tokens_per_s > 0
        assert row.decode_tokens_per_s > 0
        assert 0 < row.bandwidth_ratio < 1.2
        assert 0 < row.ttft_s < 10
