"""Choosing among a device's candidates."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.model.engine import ranked, sampler
from services.model.engine.types import Request, Sampling, Sequence

Floats = NDArray[np.float32]
COUNT = 8


@dataclass(frozen=True)
class Device:
    """Holds logits (B, V) and ranks them, equals in any order."""

    all: Floats
    asked: list[list[int]] = field(default_factory=list)

    @property
    def ids(self) -> NDArray[np.int64]:
        """As `Ranked.ids`."""
        shuffled = np.random.default_rng(0).permutation(self.all.shape[1])
        order = np.argsort(-self.all[:, shuffled], axis=1, kind="stable")[:, :COUNT]
        return shuffled[order]

    @property
    def logits(self) -> Floats:
        """As `Ranked.logits`."""
        return np.take_along_axis(self.all, self.ids, axis=1)

    @property
    def normaliser(self) -> Floats:
        """As `Ranked.normaliser`."""
        return sampler.log_sum_exp(self.all)

    def whole(self, rows: NDArray[np.int64]) -> Floats:
        """As `Ranked.whole`."""
        self.asked.append(rows.tolist())
        return self.all[rows]


def sequence(seed: int = 0, top_logprobs: int = 0, **settings: float) -> Sequence:
    """Return a sequence with a prompt of token 1."""
    sampling = Sampling(seed=seed, **settings)  # type: ignore[arg-type]
    return Sequence(
        request=Request(
            id=1, tokens=np.array([1]), max_tokens=9, top_logprobs=top_logprobs, sampling=sampling
        )
    )


SETTINGS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        "top_k": st.integers(0, 12),
        "top_p": st.sampled_from([0.2, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.1]),
        "presence_penalty": st.sampled_from([0.0, 0.0, 1.5]),
        "top_logprobs": st.integers(0, 10),
        "seed": st.integers(0, 1000),
    }
)


@given(
    settings=st.lists(SETTINGS, min_size=1, max_size=6),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([3, 12, 100_000]),
)
def test_candidates_choose_as_all_logits_do(
    settings: list[dict[str, float]], seed: int, levels: int
) -> None:
    """Whatever is asked for and however many logits are equal: token, log-probability, top."""
    noise = np.random.default_rng(seed).integers(0, levels, (len(settings), 50))
    logits = (noise * (8 / levels)).astype(np.float32)
    found = ranked.choose(Device(logits), [sequence(**s) for s in settings])  # type: ignore[arg-type]
    expected = sampler.choose(logits, [sequence(**s) for s in settings])  # type: ignore[arg-type]
    assert found.tokens.tolist() == expected.tokens.tolist()
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-6)
    for one, other in zip(found.top, expected.top, strict=True):
        # Which of several equal tokens is shown last is nobody's promise.
        assert [p for _, p in one] == pytest.approx([p for _, p in other], abs=1e-6)


def test_only_rows_that_need_it_are_fetched_whole() -> None:
    """Greedy and top-k rows are not; penalties, grammars and no top-k are."""
    logits = np.random.default_rng(3).normal(size=(5, 50)).astype(np.float32)
    device = Device(logits)
    ranked.choose(
        device,
        [
            sequence(),
            sequence(temperature=1.0),
            sequence(temperature=1.0, top_k=5, top_p=0.9),
            sequence(frequency_penalty=1.0),
            sequence(temperature=1.0, top_k=COUNT),
        ],
    )
    assert device.asked == [[1, 3, 4]]


def test_prompts_that_end_in_a_step_are_chosen_with_it() -> None:
    """Rows of the step come first, those of prompts behind, be they on the device or not."""
    logits = np.random.default_rng(4).normal(size=(4, 50)).astype(np.float32)
    prompts = [logits[2:3], logits[3:4]]
    for decoded in (Device(logits[:2]), logits[:2]):
        found = ranked.together(decoded, prompts, [sequence() for _ in range(4)])
        assert found.tokens.tolist() == logits.argmax(axis=1).tolist()
    found = ranked.together(None, prompts, [sequence() for _ in range(2)])
    assert found.tokens.tolist() == logits[2:].argmax(axis=1).tolist()
