"""How models succeed together, against simulations with a known correlation."""

import numpy as np
import pytest

from router_svc.core.agreement import Agreement, Member


@pytest.fixture
def rng() -> np.random.Generator:
    """The same draws each time."""
    return np.random.default_rng(5)


CODE, REASONING = np.eye(4)[0], np.eye(4)[1]


def members(*scores: float | None, quality: float = 0.6) -> list[Member]:
    """Answers of models a, b, c … with these scores."""
    return [
        Member(model=name, quality=quality, score=score)
        for name, score in zip("abc", scores, strict=False)
    ]


def drawn(rng: np.random.Generator, together: float, quality: float) -> tuple[float, float]:
    """Two scores whose correlation is *together*."""
    first = float(rng.random() < quality)
    same = rng.random() < together
    return first, first if same else float(rng.random() < quality)


def test_starts_at_the_prior_and_is_symmetric() -> None:
    """Half for pairs, more for a model with itself."""
    found = Agreement("ab").correlation(CODE)
    assert found == pytest.approx(np.array([[0.7, 0.5], [0.5, 0.7]]))


@pytest.mark.parametrize(("scores", "bound"), [((1.0, 1.0), 0.98), ((1.0, 0.0), -0.5)])
def test_correlations_are_bounded(scores: tuple[float, float], bound: float) -> None:
    """However far outcomes are from what was expected; never so far that nothing is left to win."""
    agreement = Agreement("ab")
    expected = [0.05 if score else 0.95 for score in scores]
    told = [
        Member(model=name, quality=quality, score=score)
        for name, quality, score in zip("ab", expected, scores, strict=True)
    ]
    for _ in range(200):
        agreement.learn(CODE, told)
    assert agreement.correlation(CODE)[0, 1] == pytest.approx(bound)


@pytest.mark.parametrize("together", [0.0, 0.3, 0.9])
def test_finds_the_correlation_that_is_there(rng: np.random.Generator, together: float) -> None:
    """From a thousand shared outcomes, whatever the prior said."""
    agreement = Agreement("ab")
    for _ in range(1500):
        agreement.learn(CODE, members(*drawn(rng, together, 0.6)))
    found = agreement.correlation(CODE)
    assert found[0, 1] == pytest.approx(together, abs=0.1)
    assert found[0, 1] == found[1, 0]


def test_tasks_differ_where_they_are_seen_to_differ(rng: np.random.Generator) -> None:
    """What one task taught is the other's first guess, until that has outcomes of its own."""
    agreement = Agreement("ab")
    for _ in range(400):
        agreement.learn(CODE, members(*drawn(rng, 0.95, 0.6)))
    guessed = agreement.correlation(REASONING)[0, 1]
    for _ in range(400):
        agreement.learn(REASONING, members(*drawn(rng, 0.0, 0.6)))
    assert guessed > 0.8
    assert agreement.correlation(REASONING)[0, 1] < 0.2
    assert agreement.correlation(CODE)[0, 1] > 0.8


def test_a_few_outcomes_move_it_a_little() -> None:
    """It is shrunk: three coincidences are no law."""
    agreement = Agreement("ab")
    for _ in range(3):
        agreement.learn(CODE, members(0.0, 0.0))
    assert 0.5 < agreement.correlation(CODE)[0, 1] < 0.7


def test_an_answer_that_differs_from_a_wrong_one_counts_as_what_it_is_expected_to_be() -> None:
    """Rather right than not: a pair that is never wrong together comes apart."""
    agreement = Agreement("ab")
    for _ in range(200):
        agreement.learn(CODE, members(0.0, None))
    assert agreement.correlation(CODE)[0, 1] < 0.1


def test_stays_a_correlation_whatever_comes(rng: np.random.Generator) -> None:
    """Surprises at sure predictions push no figure out of its bounds."""
    agreement = Agreement("abc")
    for _ in range(300):
        scores = rng.random(3).round().tolist()
        agreement.learn(rng.dirichlet(np.ones(4)), members(*scores, quality=float(rng.random())))
    found = agreement.correlation(np.full(4, 0.25))
    assert np.isfinite(found).all()
    assert (np.abs(found) <= 0.98).all()


def test_a_restart_changes_nothing(rng: np.random.Generator) -> None:
    """Models may come, go and change places."""
    before = Agreement("ab")
    for _ in range(50):
        before.learn(CODE, members(*drawn(rng, 0.1, 0.6)))
    again = Agreement(("new", "b", "a"))
    again.restore(before.to_arrays())
    assert again.correlation(CODE)[2, 1] == before.correlation(CODE)[0, 1]
    assert again.correlation(CODE)[0, 1] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="version 99"):
        again.restore({**before.to_arrays(), "version": np.array(99)})
