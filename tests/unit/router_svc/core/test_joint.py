"""One Gaussian process for all models: what must hold of it whatever was seen."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core import joint
from router_svc.core.features import EMBEDDING_SIZE, Features, lexical_profile
from router_svc.core.joint import Joint
from router_svc.core.memory import Memory, Seen


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def prompts(count: int, rng: np.random.Generator) -> list[Features]:
    vectors = rng.normal(size=(count, EMBEDDING_SIZE))
    return [replace(lexical_profile("Tell me."), embedding=v / np.linalg.norm(v)) for v in vectors]


def seen(features: list[Features], models: list[int], targets: list[float]) -> Seen:
    memory = Memory(len(features))
    for each, model, target in zip(features, models, targets, strict=True):
        memory.add(each, model, target, 1.0)
    return memory.seen()


def learned(about: Seen, count: int) -> Joint:
    found = joint.learn(about, count)
    assert found is not None
    return found


def test_it_is_the_gaussian_process_that_it_says(rng: np.random.Generator) -> None:
    """The prediction equals the textbook's, from the whole covariance."""
    features, models = prompts(30, rng), [n % 3 for n in range(30)]
    targets, weights = rng.normal(size=30), rng.uniform(0.2, 1.0, size=30)
    found = learned(replace(seen(features, models, targets.tolist()), weights=weights), 3)

    def covariance(a: int, b: int, m: int, k: int) -> float:
        near = np.exp(-np.linalg.norm(found.points[a].astype(float) - found.points[b]))
        same = float(m == k)
        return float(near * (0.5 + 0.5 * same) + 0.1 + 0.1 * same)

    rows = range(30)
    inner = np.array([[covariance(a, b, models[a], models[b]) for b in rows] for a in rows])
    influence = np.linalg.solve(inner + np.diag(2.0 / weights), targets)
    for at in (0, 17):
        outer = np.array([[covariance(at, b, m, models[b]) for b in rows] for m in range(3)])
        np.testing.assert_allclose(found.predict(features[at]), outer @ influence, atol=2e-3)


def test_many_outcomes_of_unequal_weight_are_solved_for(rng: np.random.Generator) -> None:
    """To the accuracy that predictions need, weights of a thousandth included."""
    count = 600
    points = rng.normal(size=(count, 3))
    near = np.exp(-np.linalg.norm(points[:, None] - points, axis=2)).astype(np.float32) + 0.2
    weights = rng.choice([1.0, 0.1, 0.002], size=count)
    targets = rng.normal(size=count)
    exact = np.linalg.solve(near.astype(np.float64) + np.diag(2.0 / weights), targets)
    found = joint._solved(near.copy(), targets, weights)
    np.testing.assert_allclose(near @ found, near @ exact, atol=2e-4)


def test_one_model_s_failures_warn_of_others(rng: np.random.Generator) -> None:
    """A prompt on which one failed is expected to be harder for all, most of all for itself."""
    easy, hard = prompts(2, rng)
    found = learned(seen([easy, hard] * 20, [0] * 40, [0.5, -0.5] * 20), 2)
    first, second = found.predict(easy) - found.predict(hard)
    assert first > second > 0.1


def test_what_counts_nothing_teaches_nothing(rng: np.random.Generator) -> None:
    """Outcomes of weight 0 change nothing, and nothing is learned of such alone."""
    features = prompts(8, rng)
    about = seen(features, [0] * 8, [1.0] * 4 + [-1.0] * 4)
    some = replace(about, weights=np.array([1.0] * 4 + [0.0] * 4))
    first = seen(features[:4], [0] * 4, [1.0] * 4)
    np.testing.assert_array_equal(
        learned(some, 1).predict(features[0]), learned(first, 1).predict(features[0])
    )
    assert joint.learn(replace(about, weights=np.zeros(8)), 1) is None


def test_it_survives_a_restart_whatever_models_there_are(rng: np.random.Generator) -> None:
    """Bit for bit; who is new is expected to do as all do."""
    features = prompts(20, rng)
    found = learned(seen(features, [n % 2 for n in range(20)], [0.4, -0.2] * 10), 2)
    again = joint.restored(found.to_arrays(), np.array([0, 1]), 2)
    np.testing.assert_array_equal(again.predict(features[3]), found.predict(features[3]))

    changed = joint.restored(found.to_arrays(), np.array([2, 1]), 2)
    new, kept = changed.predict(features[3])
    assert kept == pytest.approx(found.predict(features[3])[1])
    assert abs(new) < abs(kept)
