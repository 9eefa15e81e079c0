"""Votes against every outcome counted out."""

from itertools import product
from math import comb, log, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_svc.core.voting import (
    correlation,
    correlations,
    groups,
    some_right,
    surest,
    vote_quality,
    vote_weight,
)

QUALITIES = st.lists(st.floats(0.02, 0.98), min_size=2, max_size=5)


def counted(qualities: list[float]) -> float:
    """Go through who is right: they win where they outweigh any single one who is wrong."""
    weights = [vote_weight(q) for q in qualities]
    won = 0.0
    for right in product((False, True), repeat=len(qualities)):
        chance = prod(q if r else 1.0 - q for q, r in zip(qualities, right, strict=True))
        for_right = sum(w for w, r in zip(weights, right, strict=True) if r)
        lone = max((w for w, r in zip(weights, right, strict=True) if not r), default=0.0)
        won += chance * (for_right > lone)
    return won


@given(QUALITIES)
def test_a_vote_is_as_good_as_all_its_outcomes(qualities: list[float]) -> None:
    """Of two to five independent models, in any order."""
    assert vote_quality(qualities, 0.0) == pytest.approx(counted(qualities), abs=1e-9)
    assert vote_quality(qualities[::-1], 0.0) == vote_quality(qualities, 0.0)


@given(QUALITIES)
def test_models_that_fail_together_gain_nothing(qualities: list[float]) -> None:
    """Neither by voting nor by there being several."""
    assert vote_quality(qualities, 1.0) == pytest.approx(max(qualities))
    assert some_right(qualities, 1.0) == pytest.approx(max(qualities))
    apart = 1.0 - prod(1.0 - q for q in qualities)
    assert some_right(qualities, 0.0) == pytest.approx(apart)


CONFIDENCES = st.lists(
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).map(sorted), min_size=2, max_size=4
)


@given(CONFIDENCES)
def test_the_surest_is_right_as_often_as_it_says(confidences: list[list[float]]) -> None:
    """Counted out over every combination of confidences; alike, in step with one another."""
    levels = [[0.5, 0.5, 0.5, 1.0], *confidences]
    among = groups(len(levels), 3)
    for found, group in zip(surest(levels, among)[1:], among.groups, strict=True):
        some = [levels[j] for j in group.members]
        assert found.apart == pytest.approx(
            np.mean([max(each) for each in product(*some)]), abs=1e-9
        )
        stepped = [max(each) for each in zip(*some, strict=True)]
        assert found.alike == pytest.approx(np.mean(stepped), abs=1e-9)


def test_of_equally_sure_models_one_is_the_surest() -> None:
    """Whichever: it is right as often as each of them."""
    found = surest([[0.2, 0.6]] * 3, groups(3, 3))[-1]
    assert found.apart == pytest.approx(0.55)
    assert found.alike == pytest.approx(0.4)


@pytest.mark.parametrize(("models", "most"), [(2, 2), (3, 3), (6, 3), (6, 5)])
def test_every_group_is_there_once(models: int, most: int) -> None:
    """Of one to so many models, the smaller first, each beside the groups it is made of."""
    among = groups(models, most)
    members = [(), *[each.members for each in among.groups]]
    assert len(set(members)) == len(members)
    assert len(members) == sum(comb(models, size) for size in range(most + 1))
    assert members == sorted(members, key=len)
    for each in among.groups:
        assert each.members == (*members[each.rest], each.tail)
        sides = (each.members[:-1], each.members[1:], each.members[1:-1])
        assert tuple(members[i] for i in each.edges) == sides
    for model, having in enumerate(among.having):
        assert [i for i, _ in having] == [i for i, each in enumerate(members) if model in each]
        assert all({*members[rest], model} == {*members[i]} for i, rest in having)


def test_weights_follow_the_likelihood_ratio() -> None:
    """Chance level weighs next to nothing; the order is the order of quality."""
    weights = [vote_weight(q) for q in (0.2, 0.5, 0.8)]
    assert weights == pytest.approx([0.01, log(4.0), log(16.0)], abs=1e-9)


def test_correlation_is_the_mean_of_all_pairs() -> None:
    """At least 0; of several answers of one model, its own with itself."""
    agreement = np.array([[0.7, 0.2, 0.4], [0.2, 0.7, -0.9], [0.4, -0.9, 0.7]]).tolist()
    assert correlation(agreement, (0, 1)) == pytest.approx(0.2)
    assert correlation(agreement, (0, 0, 0)) == pytest.approx(0.7)
    assert correlation(agreement, (0, 1, 2)) == 0.0


@given(st.data())
def test_correlations_of_all_groups_are_those_of_each(data: st.DataObject) -> None:
    """Whatever their size."""
    drawn = data.draw(st.lists(st.floats(-0.5, 0.98), min_size=25, max_size=25))
    agreement = np.array(drawn).reshape(5, 5)
    agreement = (agreement + agreement.T) / 2.0
    among = groups(5, data.draw(st.integers(2, 5)))
    found = correlations(agreement.tolist(), among)
    assert found[:6] == [0.0] * 6
    each = [correlation(agreement.tolist(), group.members) for group in among.groups[5:]]
    assert found[6:] == pytest.approx(each)
