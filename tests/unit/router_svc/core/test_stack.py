"""A table learned in two stages: what must hold of it whatever the table."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core import stack
from router_svc.core.features import EMBEDDING_SIZE, Features, Floats, lexical_profile
from router_svc.core.pieces import pieces


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


def predicted(learned: stack.Stack, features: list[Features]) -> Floats:
    return np.stack([learned.predict(each) for each in features])


def test_like_prompts_are_expected_alike(rng: np.random.Generator) -> None:
    """Two clusters with opposite scores are told apart, on prompts that were not in the table."""
    cluster = np.arange(120) % 2
    centres = prompts(2, rng)
    shaken = [
        replace(centres[c], embedding=centres[c].embedding + 0.02 * rng.normal(size=EMBEDDING_SIZE))
        for c in cluster.tolist()
    ]
    scores = np.stack([cluster, 1.0 - cluster], axis=1)
    found = predicted(stack.learn(shaken[:80], scores[:80]), shaken[80:])

    assert (found.argmax(axis=1) == scores[80:].argmax(axis=1)).all()
    np.testing.assert_allclose(found, scores[80:], atol=0.15)


def test_wording_alone_tells_prompts_apart(rng: np.random.Generator) -> None:
    """Where the embedding says nothing, which pieces a prompt has still does, on others too."""
    kind = np.arange(240) % 2
    words = (["please", "kindly", "would"], ["fetch", "quick", "exact"])
    worded = [pieces(" ".join(rng.choice(words[k], size=6))) for k in kind.tolist()]
    features = [replace(f, pieces=w) for f, w in zip(prompts(240, rng), worded, strict=True)]
    scores = np.stack([kind, 1.0 - kind], axis=1)
    found = predicted(stack.learn(features[:180], scores[:180]), features[180:])

    assert (found.argmax(axis=1) == scores[180:].argmax(axis=1)).mean() > 0.9


def test_chance_is_not_learned(rng: np.random.Generator) -> None:
    """Where text tells nothing, predictions stay nearer to the mean than the scores do."""
    features, scores = prompts(300, rng), (rng.random((300, 3)) < 0.5).astype(np.float64)
    found = predicted(stack.learn(features[:200], scores[:200]), features[200:])

    assert np.abs(found - scores[:200].mean(axis=0)).mean() < 0.1


def test_the_second_stage_sees_no_score_of_its_prompt(rng: np.random.Generator) -> None:
    """What the first stage says in learning is about prompts that it did not see.

    Copies share a fold: their scores would tell.
    """
    features = prompts(21, rng) * 2
    fold = stack._dealt(stack._groups(stack._points(features, np.zeros(31), np.ones(31))))

    assert (fold[:21] == fold[21:]).all()
    assert len(set(fold.tolist())) == stack._FOLDS


def test_a_bad_estimate_gets_no_share(rng: np.random.Generator) -> None:
    """Shares are never negative; the truth among noise takes nearly all."""
    truth = rng.normal(size=(200, 2))
    holes = truth.copy()
    holes[::3, 1] = np.nan
    shares = stack._shares([-truth, truth, rng.normal(size=(200, 2)), 0.0 * truth], holes)

    assert shares.min() >= 0.0
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(1.0, abs=0.1)


def test_estimates_that_are_the_same_share_alike(rng: np.random.Generator) -> None:
    """Nothing tells equal estimates apart."""
    truth = rng.normal(size=(50, 2))

    np.testing.assert_allclose(stack._shares([truth] * 4, truth), 0.25, atol=1e-3)


def test_a_prediction_is_the_shares_mixture(rng: np.random.Generator) -> None:
    """Every estimate's excess over the mean counts by its share."""
    features, scores = prompts(40, rng), rng.random((40, 3))
    learned = stack.learn(features, scores)
    point = prompts(1, rng)[0]
    alone = [replace(learned, shares=one).predict(point) - learned.mean for one in np.eye(6)]
    shares = np.array([0.5, 0.2, 0.3, 0.4, 0.0, 0.1])
    mixed = replace(learned, shares=shares).predict(point)

    np.testing.assert_allclose(mixed - learned.mean, shares @ np.stack(alone))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_tables_of_a_few_rows_are_learned(count: int, rng: np.random.Generator) -> None:
    """However short a table, what comes of it is finite; a model without scores gets 0."""
    scores = np.stack([rng.random(count), np.full(count, np.nan)], axis=1)
    found = predicted(stack.learn(prompts(count, rng), scores), prompts(3, rng))

    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 1], 0.0, atol=1e-9)


def test_arrays_hold_all_of_it(rng: np.random.Generator) -> None:
    """Taken apart and put together it predicts the same, and the same table teaches the same."""
    features, scores = prompts(40, rng), rng.random((40, 3))
    learned, twice = stack.learn(features, scores), stack.learn(features, scores)
    again = stack.restored(learned.to_arrays())

    np.testing.assert_array_equal(again.predict(features[0]), learned.predict(features[0]))
    np.testing.assert_array_equal(twice.predict(features[0]), learned.predict(features[0]))


def test_a_table_from_before_wording_predicts_as_it_did(rng: np.random.Generator) -> None:
    """Grown where nothing was known of wording, and saved without it: all of it still counts."""
    nothing = np.zeros(0, dtype=np.uint16)
    features = [replace(each, pieces=nothing) for each in prompts(40, rng)]
    learned = stack.learn(features, rng.random((40, 3)))
    old = {k: v for k, v in learned.to_arrays().items() if not k.startswith("wording.")}

    again = stack.restored(old)
    np.testing.assert_array_equal(again.predict(features[0]), learned.predict(features[0]))
