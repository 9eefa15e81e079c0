"""Kernel ridge regression against its closed form."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core import kernel
from router_svc.core.features import EMBEDDING_SIZE, Features, Floats, lexical_profile


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def prompts(count: int, rng: np.random.Generator) -> list[Features]:
    """Return profiles with random embeddings and texts of differing form."""
    vectors = rng.normal(size=(count, EMBEDDING_SIZE))
    return [
        replace(lexical_profile("a b = 3 " * int(n)), embedding=v / np.linalg.norm(v))
        for n, v in zip(rng.integers(1, 30, size=count), vectors, strict=True)
    ]


def exact(learned: kernel.Kernel, features: list[Features], targets: Floats) -> Floats:
    """Return k (K + noise)^-1 (y - mean) + mean at the very *features*, in double precision."""
    x = kernel._points(features, learned.centre, learned.scale).astype(np.float64)
    near = np.exp(-np.square(x[:, None] - x[None]).sum(axis=-1))
    mean = targets.mean()
    alpha = np.linalg.solve(near + kernel._NOISE * np.eye(len(x)), targets - mean)
    solution: Floats = near @ alpha + mean
    return solution


def test_with_all_prompts_as_support_it_is_exact(rng: np.random.Generator) -> None:
    """The subset of regressors is the full Gaussian process where the subset is everything."""
    features, targets = prompts(60, rng), rng.random((60, 2))
    learned = kernel.learn(features, targets)
    found = np.stack([learned.predict(each) for each in features])

    for model in range(2):
        expected = exact(learned, features, targets[:, model])
        np.testing.assert_allclose(found[:, model], expected, atol=2e-3)


def test_a_missing_target_is_no_target(rng: np.random.Generator) -> None:
    """A model's prediction does not depend on rows in which it is not known."""
    features, targets = prompts(40, rng), rng.random((40, 2))
    holes = targets.copy()
    holes[:15, 1] = np.nan
    whole, partial = kernel.learn(features, targets), kernel.learn(features, holes)
    point = features[3]

    assert partial.predict(point)[0] == pytest.approx(whole.predict(point)[0], abs=1e-6)
    assert partial.mean[1] == pytest.approx(targets[15:, 1].mean())
    assert partial.predict(point)[1] != pytest.approx(whole.predict(point)[1], abs=1e-3)


def test_like_prompts_are_expected_alike(rng: np.random.Generator) -> None:
    """Two clusters with opposite scores are told apart; far from both the mean is expected."""
    one, other = prompts(2, rng)
    learned = kernel.learn([one] * 40 + [other] * 60, np.repeat([[1.0], [0.0]], [40, 60], axis=0))

    assert learned.predict(one)[0] > 0.85
    assert learned.predict(other)[0] < 0.1
    far = kernel.learn([one] * 10 + [other] * 10, np.repeat([[1.0], [0.0]], 10, axis=0))
    stranger = replace(one, embedding=-one.embedding, lexical=one.lexical + 50.0)
    assert far.predict(stranger)[0] == pytest.approx(0.5, abs=0.05)


def test_the_support_is_bounded_and_the_same_each_time(rng: np.random.Generator) -> None:
    """However long the table, a prediction costs no more; the same table teaches the same."""
    features = prompts(50, rng) * 25
    targets = rng.random((len(features), 1))
    one, again = (kernel.learn(features, targets) for _ in range(2))

    assert len(one.support) == kernel.SUPPORT < len(features)
    assert one.predict(features[0]) == again.predict(features[0])


def test_arrays_hold_all_of_it(rng: np.random.Generator) -> None:
    """Taken apart and put together it predicts the same."""
    features = prompts(20, rng)
    learned = kernel.learn(features, rng.random((20, 3)))
    again = kernel.restored(learned.to_arrays())

    np.testing.assert_array_equal(again.predict(features[0]), learned.predict(features[0]))
