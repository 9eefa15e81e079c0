"""How prompts are worded: what must hold of their axes whatever the prompts."""

import numpy as np
import pytest

from router_svc.core import wording
from router_svc.core.pieces import RUNS, Pieces, pieces


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def texts(words: str, count: int, rng: np.random.Generator) -> list[Pieces]:
    """Return the pieces of sentences drawn from *words*."""
    return [pieces(" ".join(rng.choice(words.split(), size=8))) for _ in range(count)]


def test_two_ways_of_wording_lie_apart(rng: np.random.Generator) -> None:
    """The first axis tells two vocabularies apart, in sentences never seen too."""
    one, other = "red green blue yellow black", "seven eight nine ten eleven"
    learned = wording.learn(texts(one, 60, rng) + texts(other, 60, rng))
    first = learned.place(texts(one, 20, rng) + texts(other, 20, rng))[:, 0]

    assert (np.sign(first[:20]) != np.sign(first[20:])).all()


def test_axes_keep_what_the_best_axes_keep(rng: np.random.Generator) -> None:
    """Random projection loses next to nothing of the spread along the exact main axes."""
    points = rng.normal(size=(200, 4096)) * np.exp(-np.arange(4096) / 20.0)
    around = (points - points.mean(axis=0)).astype(np.float32)
    axes = wording._main_axes(around)
    exact = np.linalg.svd(around, compute_uv=False)[: axes.shape[1]]

    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-5)
    assert ((around @ axes) ** 2).sum() > 0.999 * (exact**2).sum()


def test_a_rare_piece_says_more(rng: np.random.Generator) -> None:
    """Runs and words have length 1 each, in which what few prompts have counts more."""
    prompts = [*texts("red green", 50, rng), pieces("red seldom")]
    learned = wording.learn(prompts)
    weight = wording._weighed(prompts[-1], learned.rarity)
    rare = np.isin(prompts[-1], np.concatenate(prompts[:-1]), invert=True)

    assert weight[rare].min() > weight[~rare].max()
    for part in (prompts[-1] < RUNS, prompts[-1] >= RUNS):
        assert (weight[part] ** 2).sum() == pytest.approx(1.0)


def test_of_nothing_known_nothing_is_said(rng: np.random.Generator) -> None:
    """A decision from before pieces were journaled lies where all are, near enough."""
    learned = wording.learn(texts("red green blue", 20, rng))
    placed = learned.place([np.zeros(0, dtype=np.uint16)])

    np.testing.assert_array_equal(placed[0], -learned.origin)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_few_prompts_are_learned(count: int, rng: np.random.Generator) -> None:
    """Fewer prompts than axes: those that there are."""
    learned = wording.learn(texts("red green blue", count, rng))

    assert np.isfinite(learned.place(texts("red", 3, rng))).all()


def test_arrays_hold_all_of_it(rng: np.random.Generator) -> None:
    """Taken apart and put together it places alike, and the same prompts teach the same."""
    prompts = texts("red green blue seven eight", 40, rng)
    learned = wording.learn(prompts)

    for other in (wording.learn(prompts), wording.restored(learned.to_arrays())):
        np.testing.assert_array_equal(other.place(prompts), learned.place(prompts))
