"""Sampling against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.model.engine import sampler
from services.model.engine.types import Request, Sampling, Sequence

LOGITS = np.log(np.array([[0.5, 0.1, 0.3, 0.1]], np.float32))


def sequence(top_logprobs: int = 0, **sampling: float) -> Sequence:
    """Return a sequence with a prompt of token 1."""
    return Sequence(
        request=Request(
            id=1,
            tokens=np.array([1]),
            max_tokens=9,
            top_logprobs=top_logprobs,
            sampling=Sampling(**sampling),  # type: ignore[arg-type]
        )
    )


def normalised(**settings: float) -> list[float]:
    """Return what is drawn from with *settings*, for LOGITS."""
    weights = sampler.probabilities(
        LOGITS,
        np.array([settings.get("temperature", 1.0)], np.float32),
        np.array([settings.get("top_k", 0)], np.int64),
        np.array([settings.get("top_p", 1.0)], np.float32),
        np.array([settings.get("min_p", 0.0)], np.float32),
    )
    return list((weights / weights.sum()).round(6)[0])


def test_temperature_one_leaves_the_softmax() -> None:
    """Without limits the model's own distribution is drawn from."""
    assert normalised() == pytest.approx([0.5, 0.1, 0.3, 0.1])


def test_temperature_is_an_exponent() -> None:
    """Half the temperature squares the probabilities."""
    squares = np.array([0.25, 0.01, 0.09, 0.01])
    assert normalised(temperature=0.5) == pytest.approx(list(squares / squares.sum()), abs=1e-6)


def test_top_k_keeps_the_likeliest() -> None:
    """Two of four, renormalised; of equals the lower id."""
    assert normalised(top_k=2) == pytest.approx([0.625, 0, 0.375, 0])
    assert normalised(top_k=3) == pytest.approx([0.5 / 0.9, 0.1 / 0.9, 0.3 / 0.9, 0], abs=1e-6)
    assert normalised(top_k=99) == normalised()


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    """The token that crosses p is kept; p of zero and a bit keeps one."""
    assert normalised(top_p=0.6) == pytest.approx([0.625, 0, 0.375, 0])
    assert normalised(top_p=0.4) == pytest.approx([1, 0, 0, 0])
    assert normalised(top_p=1e-9) == pytest.approx([1, 0, 0, 0])


def test_top_p_is_of_what_top_k_left() -> None:
    """0.5 of 0.8 is 0.625, which reaches 0.6."""
    assert normalised(top_k=2, top_p=0.6) == pytest.approx([1, 0, 0, 0])


def test_min_p_is_relative_to_the_likeliest() -> None:
    """0.3 / 0.5 is 0.6; 0.1 / 0.5 is 0.2."""
    assert normalised(min_p=0.5) == pytest.approx([0.625, 0, 0.375, 0])
    assert normalised(min_p=1.0) == pytest.approx([1, 0, 0, 0])


def test_a_draw_inverts_the_distribution() -> None:
    """Each token owns an interval as wide as its probability, in order of ids."""
    weights = np.array([[0.5, 0.0, 0.3, 0.2]] * 5, np.float32)
    uniform = np.array([0.0, 0.49, 0.51, 0.79, 0.999999])
    assert sampler.draw(weights, uniform).tolist() == [0, 0, 2, 2, 3]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2**31))
def test_a_draw_never_gives_a_ruled_out_token(uniform: float, seed: int) -> None:
    """Zero weight is never drawn, at either end."""
    rng = np.random.default_rng(seed)
    weights = (rng.random((1, 150)) * (rng.random((1, 150)) < 0.1)).astype(np.float32)
    weights[0, rng.integers(150)] = 1.0
    token = sampler.draw(weights, np.array([uniform]))[0]
    assert weights[0, token] > 0


def test_a_draw_in_a_large_vocabulary_inverts_its_distribution() -> None:
    """Blocks are a short cut, not another distribution."""
    rng = np.random.default_rng(5)
    weights, uniform = rng.random((40, 1000)).astype(np.float32), rng.random(40)
    reached = weights.astype(np.float64).cumsum(axis=1)
    plain = (reached <= uniform[:, None] * reached[:, -1:]).sum(axis=1)
    assert sampler.draw(weights, uniform).tolist() == plain.tolist()


def test_draws_follow_the_distribution() -> None:
    """Ten thousand draws are within five standard deviations."""
    count = 10_000
    uniform = np.random.default_rng(3).random(count)
    drawn = sampler.draw(np.repeat(np.exp(LOGITS), count, axis=0), uniform)
    for token, share in enumerate((0.5, 0.1, 0.3, 0.1)):
        spread = math.sqrt(count * share * (1 - share))
        assert abs((drawn == token).sum() - count * share) < 5 * spread


def test_repetition_penalty_shrinks_seen_logits_of_either_sign() -> None:
    """Positive logits are divided, negative ones multiplied; prompt and answer count."""
    out = sampler.penalised(
        np.array([[2.0, -2.0, 2.0, -2.0]], np.float32),
        np.array([[True, True, False, False]]),
        np.array([[0, 0, 0, 3]], np.float32),
        repetition=np.array([2.0], np.float32),
        presence=np.zeros(1, np.float32),
        frequency=np.zeros(1, np.float32),
    )
    assert out.tolist() == [[1.0, -4.0, 2.0, -4.0]]


def test_presence_and_frequency_count_the_answer_alone() -> None:
    """Presence is subtracted once, frequency per occurrence, neither for the prompt."""
    out = sampler.penalised(
        np.zeros((1, 3), np.float32),
        np.array([[True, False, False]]),
        np.array([[0, 1, 3]], np.float32),
        repetition=np.ones(1, np.float32),
        presence=np.array([0.5], np.float32),
        frequency=np.array([0.25], np.float32),
    )
    assert out.tolist() == [[0.0, -0.75, -1.25]]


def test_logprobs_are_of_the_raw_logits() -> None:
    """Whatever the settings, the model's own log-probabilities are reported, likeliest first."""
    row = sequence(top_logprobs=3, temperature=0.3, top_k=1, repetition_penalty=2.0)
    choices = sampler.choose(LOGITS, [row])
    assert choices.tokens.tolist() == [0]
    assert choices.logprobs[0] == pytest.approx(math.log(0.5), abs=1e-6)
    assert [i for i, _ in choices.top[0]] == [0, 2, 1]
    assert [x for _, x in choices.top[0]] == pytest.approx(
        [math.log(0.5), math.log(0.3), math.log(0.1)], abs=1e-6
    )


def test_greedy_takes_the_likeliest_after_penalties() -> None:
    """A penalty can change a greedy choice."""
    logits = np.array([[1.0, 1.1, 0.0, 0.0]], np.float32)
    assert sampler.choose(logits, [sequence()]).tokens.tolist() == [1]
    assert sampler.choose(logits, [sequence(repetition_penalty=2.0)]).tokens.tolist() == [0]


@pytest.mark.parametrize(
    "row",
    [
        sequence(temperature=1e-45),
        sequence(temperature=2.0, top_p=1e-45),
        sequence(temperature=1.0, repetition_penalty=1e-45),
        sequence(temperature=1.0, min_p=1.0, top_k=2**32 - 1),
    ],
)
def test_extreme_settings_still_choose_a_token(row: Sequence) -> None:
    """Whatever the contract allows gives a token of the vocabulary."""
    token = sampler.choose(LOGITS, [row]).tokens[0]
    assert 0 <= token < LOGITS.shape[1]


class Only:
    """A grammar, and its matcher, that allows the same tokens at all times."""

    error = ""

    def __init__(self, *tokens: int) -> None:
        self._bits = np.packbits(np.isin(np.arange(4), tokens), bitorder="little")

    def matcher(self) -> "Only":
        """Return itself: it has no state."""
        return self

    def allowed(self) -> NDArray[np.uint8]:
        """As ever."""
        return self._bits

    def accept(self, token: int) -> bool:
        """Never end."""
        del token
        return False


def constrained(grammar: Only, **sampling: float) -> Sequence:
    """Return a sequence that *grammar* rules."""
    free = sequence(top_logprobs=2, **sampling)
    return Sequence(request=replace(free.request, grammar=grammar))


def test_a_grammar_chooses_among_what_it_allows() -> None:
    """The likeliest of those; log-probabilities and neighbours are what they were."""
    choices = sampler.choose(
        np.repeat(LOGITS, 3, axis=0), [sequence(), constrained(Only(1, 2)), sequence()]
    )
    assert choices.tokens.tolist() == [0, 2, 0]
    assert choices.logprobs[1] == pytest.approx(math.log(0.3), abs=1e-6)
    assert [i for i, _ in choices.top[1]] == [0, 2]


extreme_settings = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 1e-45, 0.7, 2.0]),
        "repetition_penalty": st.sampled_from([1.0, 1e-45, 2.0]),
        "top_p": st.sampled_from([1e-45, 0.5, 1.0]),
        "top_k": st.integers(1, 4),
        "min_p": st.sampled_from([0.0, 1.0]),
    }
)
logits = st.lists(st.floats(-1e38, 1e38), min_size=4, max_size=4)


@given(logits, st.sets(st.integers(0, 3), min_size=1), extreme_settings)
def test_no_setting_chooses_what_a_grammar_rules_out(
    row: list[float], allowed: set[int], settings: dict[str, float]
) -> None:
    """Not even penalties without bounds, or limits that keep one token."""
    ruled = constrained(Only(*allowed), **settings)
    assert sampler.choose(np.array([row], np.float32), [ruled]).tokens[0] in allowed


def test_log_sum_exp_survives_large_logits() -> None:
    """No overflow, no underflow."""
    out = sampler.log_sum_exp(np.array([[1e4, 1e4], [-1e4, -1e4]], np.float32))
    assert out.tolist() == pytest.approx([1e4 + math.log(2), -1e4 + math.log(2)])


def test_a_score_sums_what_each_token_got() -> None:
    """Against the softmax written out."""
    logits = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = sum(math.log(probabilities[i, t]) for i, t in enumerate((4, 0, 2)))
    assert sampler.score(logits, np.array([4, 0, 2])) == pytest.approx(expected, abs=1e-5)
