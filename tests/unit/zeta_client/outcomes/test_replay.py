"""Replays of small generated tables, whose right figures are known."""

import numpy as np
import pytest

from router_svc.core import evaluate
from router_svc.core.evaluate import Floats
from router_svc.core.features import Features, lexical_profile
from router_svc.core.quality import Quality
from zeta_client.outcomes import figures, replay
from zeta_client.outcomes.replay import Folded, Online
from zeta_client.outcomes.table import Outcomes

MODELS = ("coder-7b", "general-4b")
COUNT = 240


def table(scores: Floats, costs: Floats | None = None) -> Outcomes:
    """Return a table whose prompts are code and questions in turn."""
    prompts = [
        f"What does sorted([{i}, {i % 7}])[0] return in Python?" if i % 2 else f"Who is Anna {i}?"
        for i in range(len(scores))
    ]
    return Outcomes(
        prompts=tuple(prompts),
        models=MODELS,
        scores=scores,
        costs=np.tile([7.0, 4.0], (len(scores), 1)) if costs is None else costs,
        notes=(),
    )


def profiles(found: Outcomes) -> list[Features]:
    return [lexical_profile(text) for text in found.prompts]


def split() -> Floats:
    """Return scores of a coder that knows code alone and a generalist that knows the rest."""
    code = np.arange(COUNT) % 2
    return np.stack([code, 1.0 - code], axis=1)


def folded(found: Outcomes) -> Folded:
    fold = evaluate.folds(np.arange(len(found.prompts)), 5, np.random.default_rng(0))
    return replay.folded(found, profiles(found), fold, lambda _: None)


def passed(found: Outcomes, explore_ratio: float = 0.02) -> Online:
    return replay.online(
        profiles(found),
        found.scores,
        Quality(found.models, {}),
        explore_ratio=explore_ratio,
        rng=np.random.default_rng(0),
        advance=lambda _: None,
    )


def test_what_the_text_tells_is_learned_in_folds() -> None:
    """Where the kind of prompt decides, prompts never seen are routed like the oracle."""
    found = table(split())
    models = evaluate.chosen(folded(found).predicted, found.scores)

    assert evaluate.taken(found.scores, models).mean() > 0.98


def test_a_fold_does_not_see_its_own_scores() -> None:
    """Scores of chance are not predicted: routing on them gains nothing."""
    rng = np.random.default_rng(2)
    found = table((rng.random((COUNT, 2)) < 0.5).astype(np.float64))
    models = evaluate.chosen(folded(found).predicted, found.scores)

    assert abs(evaluate.taken(found.scores, models).mean() - 0.5) < 0.1


def test_online_learns_from_the_chosen_model_alone() -> None:
    """From a cold start the last quarter is near the oracle; nothing unseen is needed for it."""
    found = passed(table(split()))

    assert found.scores[COUNT * 3 // 4 :].mean() > 0.95
    assert sorted(found.order.tolist()) == list(range(COUNT))
    np.testing.assert_array_equal(found.scores, split()[found.order, found.models])


def test_a_pass_can_be_repeated() -> None:
    """The same seed replays the same choices."""
    one, other = (passed(table(split()), explore_ratio=0.2) for _ in range(2))

    np.testing.assert_array_equal(one.models, other.models)


def test_a_model_that_was_not_run_is_never_asked() -> None:
    """Neither by judgement nor to explore."""
    scores = split()
    scores[::3, 0] = np.nan
    found = passed(table(scores), explore_ratio=0.5)

    assert not np.isnan(found.scores).any()


def test_the_best_single_was_run_on_nearly_everything() -> None:
    """A model that was only run where it is right is no policy to beat."""
    scores = split()
    scores[scores[:, 0] == 0.0, 0] = np.nan
    found = table(scores)
    parts = folded(found)
    shown = figures.summary(found, parts, passed(found), figures.curves(found, parts))

    assert (shown["best_single_model"], shown["best_single"]) == ("general-4b", 0.5)


def test_the_summary_has_the_promised_figures() -> None:
    """Two models that split the prompts: every figure is known beforehand."""
    found = table(split())
    parts = folded(found)
    shown = figures.summary(found, parts, passed(found), figures.curves(found, parts))

    assert list(shown) == [
        *("n", "random", "best_single", "best_single_model", "oracle", "routed_cv"),
        *("online_mean", "online_last_quarter", "aiq", "aiq_zero", "apgr", "cpt50", "cpt80"),
        *("decisions_per_s", "p50_ms", "p99_ms"),
    ]
    assert (shown["n"], shown["random"], shown["best_single"]) == (COUNT, 0.5, 0.5)
    assert (shown["best_single_model"], shown["oracle"]) == ("coder-7b", 1.0)
    assert shown["aiq_zero"] == pytest.approx(0.5)
    assert (shown["apgr"], shown["cpt50"]) == (None, None)


def test_routing_beats_the_zero_router_where_the_text_tells() -> None:
    """Right half of the time at the cheap end, always from the middle on: (.75 + 1) / 2."""
    found = table(split())
    parts = folded(found)
    shape = figures.curves(found, parts)
    aiq = evaluate.aiq(shape.cost, shape.quality, 4.0, 7.0)

    assert aiq == pytest.approx(0.875, abs=0.01)


def test_a_pair_is_measured_on_prompts_of_both() -> None:
    """The strong model is needed for code alone: half the calls recover the whole gap."""
    code = np.arange(COUNT) % 2
    scores = np.stack([np.ones(COUNT), 1.0 - code], axis=1)
    scores[:6, 1] = np.nan
    found = table(scores)
    parts = folded(found)
    shown = figures.summary(found, parts, passed(found), figures.curves(found, parts))

    assert shown["apgr"] == pytest.approx(0.75, abs=0.02)
    assert shown["cpt50"] == pytest.approx(0.25, abs=0.02)
    assert shown["cpt80"] == pytest.approx(0.4, abs=0.02)


def test_more_than_two_models_are_no_pair() -> None:
    """APGR and CPT are left out where they mean nothing."""
    scores = np.concatenate([split(), np.full((COUNT, 1), 0.1)], axis=1)
    found = Outcomes(
        prompts=table(split()).prompts,
        models=(*MODELS, "other-1b"),
        scores=scores,
        costs=np.ones_like(scores),
        notes=(),
    )
    parts = folded(found)
    shown = figures.summary(found, parts, passed(found), figures.curves(found, parts))

    assert not {"apgr", "cpt50", "cpt80"} & shown.keys()
    assert shown["aiq"] == pytest.approx(float(shown["routed_cv"] or 0), abs=0.01)
