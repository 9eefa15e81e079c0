"""Adapters of embeddings: the identity unless they are measured to help."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core import adapters
from router_svc.core.adapters import Adapters, stretched
from router_svc.core.features import EMBEDDING_SIZE, lexical_profile
from router_svc.core.kernel import Halved
from router_svc.core.memory import Memory, Seen

COUNT = 700


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def units(count: int, rng: np.random.Generator) -> Halved:
    found = rng.normal(size=(count, EMBEDDING_SIZE)).astype(np.float32)
    # A few directions matter, as in real embeddings.
    found[:, 8:] *= 0.05
    unit: Halved = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def seen(rng: np.random.Generator, *, signal: float, models: int = 1) -> Seen:
    """Outcomes of models whose scores follow the first dimension, or nothing."""
    memory, plain = Memory(COUNT), lexical_profile("Tell me.")
    for n, vector in enumerate(units(COUNT, rng)):
        features = replace(plain, embedding=vector.astype(np.float64))
        target = signal * float(np.sign(vector[0])) + 0.3 * float(rng.normal())
        memory.add(features, n % models, target, 1.0)
    return memory.seen()


def test_a_direction_is_found_where_scores_follow_it(rng: np.random.Generator) -> None:
    """And it is of length 1."""
    (direction,) = adapters.learn(seen(rng, signal=0.4), COUNT, 1)
    assert np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-5)
    assert abs(direction[0]) > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_scores_that_follow_nothing_leave_the_identity(seed: int) -> None:
    """What does not help on outcomes not learned from is not applied."""
    found = adapters.learn(seen(np.random.default_rng(seed), signal=0.0), COUNT, 1)
    assert not found.any()


def test_few_outcomes_leave_the_identity(rng: np.random.Generator) -> None:
    """Of a model, of the encoder in use, or that count."""
    about = seen(rng, signal=0.4)
    assert not adapters.learn(about, 150, 1).any()
    assert not adapters.learn(about, 0, 1).any()
    assert not adapters.learn(replace(about, weights=np.zeros(COUNT)), COUNT, 1).any()
    shared = adapters.learn(seen(rng, signal=0.4, models=4), COUNT, 4)
    assert not shared.any()


def test_vectors_are_stretched_and_of_length_one(rng: np.random.Generator) -> None:
    """Twice as far along the direction, whoever the others are."""
    direction = units(1, rng)[0]
    along = stretched(np.stack([direction, -direction]), direction)
    np.testing.assert_allclose(along, [direction, -direction], atol=1e-5)
    vectors = units(5, rng)
    found = stretched(vectors, direction)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    wide = vectors @ (np.eye(EMBEDDING_SIZE) + np.outer(direction, direction))
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def of_encoder(name: str) -> Adapters:
    """Adapters of two models, the second one's learned."""
    about = Adapters(["a", "b"])
    directions = np.zeros((2, EMBEDDING_SIZE), dtype=np.float32)
    directions[1, 3] = 1.0
    vector = np.eye(EMBEDDING_SIZE)[0]
    about.noted(replace(lexical_profile("x"), embedding=vector, source=f"{name}+classifier"))
    about.adopt(directions, name)
    return about


def test_only_vectors_of_the_same_encoder_are_adapted(rng: np.random.Generator) -> None:
    """And only for a model with an adapter."""
    about, vectors = of_encoder("mini"), units(2, rng)
    assert about.adapted() == ("b",)
    for model, encoder, there in (("b", "mini", True), ("a", "mini", False), ("b", "q", False)):
        found, adapted = about.adapt(vectors, model, encoder)
        assert (adapted, np.array_equal(found, vectors)) == (there, not there)


def test_another_encoder_begins_anew() -> None:
    """Text features alone, which have no vector, change nothing."""
    about = of_encoder("mini")
    about.noted(lexical_profile("x"))
    assert (about.adapted(), about.outcomes) == (("b",), 2)
    late = np.ones((2, EMBEDDING_SIZE), dtype=np.float32)
    vector = np.eye(EMBEDDING_SIZE)[0]
    about.noted(replace(lexical_profile("x"), embedding=vector, source="other+classifier"))
    about.adopt(late, "mini")
    assert (about.adapted(), about.outcomes, about.encoder) == ((), 1, "other")


def test_they_survive_a_restart(rng: np.random.Generator) -> None:
    """Bit for bit, with other models beside them; other versions are refused."""
    about, vectors = of_encoder("mini"), units(2, rng)
    again = Adapters(["new", "b"])
    again.restore(about.to_arrays())
    assert (again.encoder, again.outcomes, again.adapted()) == ("mini", 1, ("b",))
    was, now = (each.adapt(vectors, "b", "mini")[0] for each in (about, again))
    np.testing.assert_array_equal(was, now)
    with pytest.raises(ValueError, match="version 99"):
        again.restore({**about.to_arrays(), "version": np.array(99)})
