"""Quality starts at its priors, follows outcomes, and survives a restart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_svc.core.features import TASKS, Features, lexical_profile
from router_svc.core.quality import Quality

MODELS = ("general", "coder", "reasoner")
PRIORS = {
    "general": {"code": 0.4, "reasoning": 0.4, "general": 0.7},
    "coder": {"code": 0.7, "reasoning": 0.4, "general": 0.4},
    "reasoner": {"code": 0.4, "reasoning": 0.7, "general": 0.4},
}
TRUTH = np.array([[0.9, 0.2, 0.1], [0.3, 0.9, 0.2], [0.1, 0.3, 0.9], [0.2, 0.1, 0.8]])
"""Success per family of prompt and model; the last family contradicts the priors."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def quality() -> Quality:
    return Quality(MODELS, PRIORS)


def certain(task: str) -> Features:
    tasks = np.array([float(task == t) for t in TASKS])
    return replace(lexical_profile("Something."), tasks=tasks)


def prompt(family: int, rng: np.random.Generator) -> Features:
    a, b = rng.integers(2, 99, size=2)
    word = rng.choice(["apple", "tower", "silver", "garden"])
    text = (
        f"Is '{word}' a colour or an animal?",
        f"What does ['{word}', {a}][0] return in Python?",
        f"What is {a} + {b} * {a}?",
        f"In Python, what is sum([{a}, {b}, {a}, {b}]) + {a} * {b}?",
    )[family]
    return lexical_profile(text)


def test_the_prior_decides_before_any_outcome(quality: Quality) -> None:
    """Every prediction starts at the configured prior of the task."""
    for task in ("code", "reasoning", "general"):
        mean, stddev = quality.predict(certain(task))
        np.testing.assert_allclose(mean, [PRIORS[m][task] for m in MODELS])
        assert (stddev > 0.1).all()


def test_one_outcome_moves_a_prediction_but_little(quality: Quality) -> None:
    """A single failure lowers the expectation and does not sweep the prior away."""
    quality.learn("coder", certain("code"), 0.0)

    mean, _ = quality.predict(certain("code"))
    assert 0.35 < mean[1] < 0.65
    assert mean[0] == pytest.approx(0.4)


def test_uncertainty_shrinks_with_outcomes(quality: Quality) -> None:
    """What was asked often is known better than what was not."""
    _, before = quality.predict(certain("code"))
    for score in (1.0, 0.0) * 20:
        quality.learn("coder", certain("code"), score)

    _, after = quality.predict(certain("code"))
    assert after[1] < 0.5 * before[1]
    assert after[0] == pytest.approx(before[0])


def test_routes_each_family_well_after_a_few_hundred_outcomes(rng: np.random.Generator) -> None:
    """With feedback on the chosen model alone, the right one is found per family, labels unseen."""
    quality, right = Quality(MODELS, PRIORS), []
    for n in range(400):
        family = int(rng.integers(len(TRUTH)))
        features = prompt(family, rng)
        mean, _ = quality.predict(features)
        chosen = int(rng.integers(3)) if rng.random() < 0.04 else int(mean.argmax())
        quality.learn(MODELS[chosen], features, float(rng.random() < TRUTH[family, chosen]))
        right.append(mean.argmax() == TRUTH[family].argmax() if n >= 250 else None)

    assert np.mean([r for r in right if r is not None]) > 0.9


def test_follows_a_model_that_degrades() -> None:
    """A short half-life lets recent failures outweigh a long good past."""
    quality, features = Quality(MODELS, PRIORS, half_life_outcomes=20.0), certain("code")
    for score in [1.0] * 200 + [0.0] * 40:
        quality.learn("coder", features, score)

    mean, _ = quality.predict(features)
    assert mean[1] < mean[0]


def test_weight_counts_like_repetition() -> None:
    """An outcome of weight 3 says as much as the same one three times."""
    once, thrice = (Quality(MODELS, PRIORS, half_life_outcomes=1e9) for _ in range(2))
    once.learn("coder", certain("code"), 1.0, weight=3.0)
    for _ in range(3):
        thrice.learn("coder", certain("code"), 1.0)

    np.testing.assert_allclose(
        once.predict(certain("code"))[0], thrice.predict(certain("code"))[0], atol=1e-6
    )


@pytest.fixture
def warm(rng: np.random.Generator) -> Quality:
    """Return a learner that was started from a table in which every family has its model."""
    warm, families = Quality(MODELS, PRIORS), np.arange(200) % len(TRUTH)
    scores = (rng.random((200, 3)) < TRUTH[families]).astype(np.float64)
    scores[::7, 0] = np.nan
    warm.learn_table([prompt(family, rng) for family in families.tolist()], scores)
    return warm


def test_a_table_is_a_warm_start(warm: Quality, rng: np.random.Generator) -> None:
    """Before any outcome the right model is known for prompts that are not in the table."""
    for family, truth in enumerate(TRUTH):
        for _ in range(5):
            mean, stddev = warm.predict(prompt(family, rng))
            assert mean.argmax() == truth.argmax()
            assert (stddev < 0.2).all()


def test_outcomes_correct_a_table(warm: Quality, rng: np.random.Generator) -> None:
    """A model that no longer does what the table says is left."""
    for _ in range(60):
        warm.learn("coder", prompt(1, rng), 0.0)

    mean, _ = warm.predict(prompt(1, rng))
    assert mean.argmax() != 1


def test_a_table_survives_a_restart(warm: Quality, rng: np.random.Generator) -> None:
    """Saved and restored, a warm learner predicts the same; a new model starts at its prior."""
    features = prompt(2, rng)
    warm.learn("coder", features, 0.0)
    again, changed = Quality(MODELS, PRIORS), Quality(("new", "reasoner"), PRIORS)
    again.restore(warm.to_arrays())
    changed.restore(warm.to_arrays())

    np.testing.assert_array_equal(again.predict(features), warm.predict(features))
    assert changed.predict(features)[0][0] == pytest.approx(0.5)
    assert changed.predict(features)[0][1] == pytest.approx(warm.predict(features)[0][2], abs=1e-6)


def test_a_model_that_no_row_knows_keeps_its_prior(rng: np.random.Generator) -> None:
    """A table without any score of a model says nothing about it."""
    quality, features = Quality(MODELS, PRIORS), certain("code")
    scores = np.tile([np.nan, 0.0, 1.0], (20, 1))
    quality.learn_table([prompt(0, rng) for _ in range(20)], scores)

    assert quality.predict(features)[0][0] == pytest.approx(0.4)


def test_refuses_a_wrong_or_late_table(quality: Quality) -> None:
    """One score out of range spoils a table, and a table cannot overrule what was learned."""
    with pytest.raises(ValueError, match=r"not all are in \[0, 1\]"):
        quality.learn_table([certain("code")], np.array([[0.5, 1.5, np.nan]]))
    quality.learn("coder", certain("code"), 1.0)
    with pytest.raises(ValueError, match="before every other outcome"):
        quality.learn_table([certain("code")], np.array([[0.5, 1.0, np.nan]]))


def test_beliefs_tell_what_was_seen(quality: Quality) -> None:
    """A belief is the prior's handful of outcomes and those seen, per model and task."""
    for _ in range(4):
        quality.learn("coder", certain("code"), 1.0)

    found = {(b.model, b.task): b for b in quality.beliefs()}
    assert len(found) == len(MODELS) * len(TASKS)
    assert found["coder", "code"].mean == pytest.approx((4 * 0.7 + 4) / 8, abs=1e-3)
    assert found["coder", "code"].outcomes == pytest.approx(4.0, abs=0.01)
    assert found["general", "general"].mean == pytest.approx(0.7)


def test_a_restart_changes_nothing(quality: Quality, rng: np.random.Generator) -> None:
    """State saved and restored predicts bit for bit the same, and goes on learning the same."""
    for n in range(30):
        quality.learn(MODELS[n % 3], prompt(n % 4, rng), float(n % 2))
    again = Quality(MODELS, PRIORS)
    again.restore(quality.to_arrays())
    features = prompt(1, rng)
    for each in (quality, again):
        each.learn("coder", features, 1.0)

    np.testing.assert_array_equal(again.predict(features), quality.predict(features))
    assert again.beliefs() == quality.beliefs()


def taught(quality: Quality, count: int, rng: np.random.Generator) -> int:
    """Let *quality* learn *count* outcomes of random models and take its lessons; count those."""
    lessons = 0
    for _ in range(count):
        family, model = rng.integers(4), rng.integers(3)
        score = float(rng.random() < TRUTH[family, model])
        quality.learn(MODELS[model], prompt(int(family), rng), score)
        if lesson := quality.lesson():
            quality.adopt(lesson.learn())
            lessons += 1
    return lessons


def test_lessons_come_often_at_first(quality: Quality, rng: np.random.Generator) -> None:
    """After 100 outcomes, then whenever there are twice as many, at last every 500."""
    assert taught(quality, 99, rng) == 0
    assert taught(quality, 1, rng) == 1
    assert taught(quality, 300, rng) == 2
    assert taught(quality, 1000, rng) == 2


def test_a_lesson_tells_what_regressions_cannot(rng: np.random.Generator) -> None:
    """Two interleaved clusters of topics, of which no direction tells good from bad."""
    quality, errors = Quality(("a", "b"), {}), []
    centres = rng.normal(size=(40, 384))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    topics = [replace(lexical_profile("Tell me."), embedding=c) for c in centres]
    for n in range(400):
        quality.learn("a", topics[n % 40], float(rng.random() < (0.9, 0.1)[n % 40 % 2]))
    lesson = quality.lesson()
    assert lesson is not None
    for learned in (None, lesson.learn()):
        quality.adopt(learned)
        found = np.array([quality.predict(each)[0][0] for each in topics])
        errors.append(float(np.abs(found - np.where(np.arange(40) % 2, 0.1, 0.9)).mean()))
    assert errors[1] < errors[0]


def test_a_model_alone_is_predicted_as_among_all(warm: Quality, rng: np.random.Generator) -> None:
    """From the prior, from a table, and from what a lesson made of the memory."""
    for each in (Quality(MODELS, PRIORS), warm):
        taught(each, 120, rng)
        assert each._joint is not None
        asked = prompt(2, rng)
        alone = np.array([each.predict_one(i, asked) for i in range(len(MODELS))]).T
        np.testing.assert_allclose(alone, each.predict(asked), rtol=1e-9)


def test_what_was_asked_last_is_not_remembered_too_long(rng: np.random.Generator) -> None:
    """A lesson, an outcome, a table or a restored state count for the very prompt asked before."""
    about, other, again = (Quality(MODELS, PRIORS) for _ in range(3))
    asked = prompt(0, rng)
    said = [about.predict(asked)[0].tolist()]
    about.learn("coder", asked, 1.0)
    said.append(about.predict(asked)[0].tolist())
    for n in range(120):
        about.learn(MODELS[n % 3], prompt(n % 4, rng), float(n % 2))
    said.append(about.predict(asked)[0].tolist())
    lesson = about.lesson()
    assert lesson is not None
    about.adopt(lesson.learn())
    said.append(about.predict(asked)[0].tolist())
    other.predict(asked)
    other.learn_table([prompt(n % 4, rng) for n in range(40)], rng.random((40, 3)))
    said.append(other.predict(asked)[0].tolist())
    assert len({tuple(each) for each in said}) == len(said)
    again.predict(asked)
    again.restore(about.to_arrays())
    np.testing.assert_array_equal(again.predict(asked)[0], about.predict(replace(asked))[0])


def test_many_prompts_are_told_apart(warm: Quality, rng: np.random.Generator) -> None:
    """More than are kept, asked about in turn, and again: each is predicted as if it were alone."""
    asked = [prompt(n % 4, rng) for n in range(600)]
    first = [warm.predict(each)[0].tolist() for each in asked]
    again = [warm.predict(each)[0].tolist() for each in reversed(asked)]
    alone = [warm.predict(replace(each))[0].tolist() for each in asked]
    assert first == again[::-1] == alone
    assert len(warm._known) < len(asked)


def test_a_lesson_survives_a_restart(quality: Quality, rng: np.random.Generator) -> None:
    """What was remembered and learned of it predicts bit for bit the same, and so does the next."""
    taught(quality, 150, rng)
    again = Quality(MODELS, PRIORS)
    again.restore(quality.to_arrays())
    features, twin = prompt(2, rng), np.random.default_rng(0)
    np.testing.assert_array_equal(again.predict(features), quality.predict(features))
    counts = [taught(each, 60, np.random.default_rng(0)) for each in (quality, again)]
    assert counts == [1, 1]
    features = prompt(3, twin)
    np.testing.assert_array_equal(again.predict(features), quality.predict(features))


def test_state_without_a_memory_is_taken(quality: Quality, rng: np.random.Generator) -> None:
    """As the version before saved it: what the regressions know is kept."""
    taught(quality, 50, rng)
    state = quality.to_arrays()
    earlier = {k: v for k, v in state.items() if not k.startswith("memory.") and k != "untaught"}
    again, features = Quality(MODELS, PRIORS), prompt(1, rng)
    again.restore(earlier)
    np.testing.assert_array_equal(again.predict(features), quality.predict(features))


def test_models_may_come_and_go(quality: Quality) -> None:
    """A model that stays keeps its state wherever it is listed; a new one starts at its prior."""
    quality.learn("coder", certain("code"), 0.0)
    changed = Quality(("new", "coder"), {"new": {"code": 0.6}, **PRIORS})
    changed.restore(quality.to_arrays())

    mean, _ = changed.predict(certain("code"))
    assert mean[0] == pytest.approx(0.6)
    assert mean[1] == quality.predict(certain("code"))[0][1]


def test_refuses_the_state_of_another_version(quality: Quality) -> None:
    """State of an unknown layout is refused, not guessed at."""
    arrays = {**quality.to_arrays(), "version": np.array(99)}

    with pytest.raises(ValueError, match="version 99"):
        quality.restore(arrays)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
def test_refuses_scores_out_of_range(quality: Quality, score: float) -> None:
    """A score outside [0, 1] is refused and leaves no trace."""
    before = quality.predict(certain("code"))
    with pytest.raises(ValueError, match="score"):
        quality.learn("coder", certain("code"), score)

    np.testing.assert_array_equal(quality.predict(certain("code")), before)


def test_refuses_unknown_models(quality: Quality) -> None:
    """Learning about a model that is not there is a mistake of the caller."""
    with pytest.raises(KeyError):
        quality.learn("nobody", certain("code"), 1.0)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(MODELS), st.text(max_size=80), st.floats(0, 1), st.floats(0, 1e6)
        ),
        max_size=12,
    )
)
def test_predictions_stay_in_range(outcomes: list[tuple[str, str, float, float]]) -> None:
    """Whatever was learned, the mean is in [0, 1] and the deviation finite."""
    quality = Quality(MODELS, PRIORS)
    for model, text, score, weight in outcomes:
        quality.learn(model, lexical_profile(text), score, weight)

    mean, stddev = quality.predict(lexical_profile("What is 3 + 4?"))
    assert ((mean >= 0.0) & (mean <= 1.0)).all()
    assert ((stddev >= 0.0) & (stddev <= 0.5)).all()


def test_surprises_count_from_the_next_request_on() -> None:
    """How scores scatter is part of how unsure a belief is, here and in one that is restored."""
    about = lexical_profile("What is 2 + 2?")
    model, again = Quality(["a"], {}), Quality(["a"], {})
    model.predict(about)
    again.predict(about)
    for score in (0.0, 1.0, 0.0, 1.0):
        model.learn("a", about, score)
    again.restore(model.to_arrays())
    assert model.predict(about)[1] == pytest.approx(again.predict(about)[1])
    count, squares = model.to_arrays()["residuals"][0]
    assert squares > 0.2 * count, "these scores surprise more than a prior's"
