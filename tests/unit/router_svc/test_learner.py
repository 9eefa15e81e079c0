"""Learning, and remembering it."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc.core.features import EMBEDDING_SIZE
from router_svc.core.joint import Joint
from router_svc.core.quality import Lesson
from router_svc.core.reward import Step
from router_svc.fleet import Fleet
from router_svc.learner import Learner, Remembered, packed, unpacked
from router_svc.run import Call
from services.kit.config import Router
from tests.unit.router_svc.fixtures import ManualClock, features, models


def about(*steps: Step, kind: str = "single", expected: float = 0.5) -> Remembered:
    """A decision that was carried out."""
    return Remembered(features=features(), kind=kind, expected_quality=expected, steps=steps)


def step(model: str, *, chosen: bool = True, agrees: bool | None = None) -> Step:
    """A call that was answered."""
    return Step(model=model, replica=f"{model}-0", chosen=chosen, agrees=agrees, mean_logprob=-0.1)


def quality(learner: Learner) -> list[float]:
    """What is expected of each model."""
    return [float(q) for q in learner.predictors.quality.predict(features())[0]]


def test_scores_move_the_model_that_answered() -> None:
    """Up with good ones, down with bad ones, and nobody else."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    before = quality(learner)
    for _ in range(20):
        learner.feedback(about(step("a")), 1.0)
    after = quality(learner)
    assert after[0] > before[0] + 0.2
    assert after[1] == pytest.approx(before[1])


async def test_lessons_are_learned_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is learned, the loop answers and learns; what comes of it then counts."""
    learner, go_on = Learner(models({"a": 1, "b": 1}), 1000.0), threading.Event()
    learn = Lesson.learn

    def slowly(lesson: Lesson) -> Joint | None:
        assert go_on.wait(10.0), "the loop stood still"
        return learn(lesson)

    monkeypatch.setattr(Lesson, "learn", slowly)
    assert not await learner.study()
    for n in range(100):
        learner.feedback(about(step("ab"[n % 2])), 0.7)
    before = quality(learner)
    lesson = asyncio.create_task(learner.study())
    await asyncio.sleep(0)
    assert quality(learner) == before
    learner.dirty = False
    go_on.set()
    assert await lesson
    assert learner.dirty
    assert quality(learner) != before
    assert not await learner.study()


async def test_adapters_are_learned_with_a_lesson_and_survive() -> None:
    """From outcomes that follow the embedding, of the model that they are of."""
    learner, rng = Learner(models({"a": 1, "b": 1}), 1000.0), np.random.default_rng(3)
    for n in range(700):
        vector = rng.normal(size=EMBEDDING_SIZE) * np.where(np.arange(EMBEDDING_SIZE) < 8, 1, 0.05)
        vector /= np.linalg.norm(vector)
        asked = replace(features(), embedding=vector, source="mini+classifier")
        right = vector[0] > 0.0 if n % 2 else rng.random() < 0.5
        learner.feedback(replace(about(step("ba"[n % 2])), features=asked), float(right))
    assert await learner.study()
    assert learner.adapters.adapted() == ("a",)
    again = Learner(models({"a": 1, "new": 1}), 1000.0)
    again.restore(unpacked(packed(learner.to_arrays())))
    assert again.adapters.adapted() == ("a",)


def test_a_vote_teaches_about_every_voter() -> None:
    """Whoever disagreed with a right answer was wrong."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    before = quality(learner)
    for _ in range(10):
        learner.feedback(about(step("a"), step("b", chosen=False, agrees=False), kind="vote"), 1.0)
    after = quality(learner)
    assert after[0] > before[0]
    assert after[1] < before[1]


@pytest.mark.parametrize(("score", "proved"), [(1.0, 0.0), (0.0, 0.0)])
def test_ensembles_that_add_nothing_are_believed_less(score: float, proved: float) -> None:
    """However often they are right: what counts is what the best model alone would have been."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    for _ in range(300):
        gain = learner.predictors.gains.by_kind().get("vote", 0.0)
        voters = step("a"), step("b", chosen=False, agrees=True)
        learner.feedback(
            replace(about(*voters, kind="vote", expected=0.7 + gain), alone="a", alone_quality=0.5),
            score,
        )
    assert learner.predictors.gains.by_kind()["vote"] == pytest.approx(proved - 0.2, abs=0.04)


def test_ensembles_that_help_are_believed_more() -> None:
    """Where the best model was outvoted by a right answer, it alone would have been wrong."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    for _ in range(20):
        voters = step("a", chosen=False, agrees=False), step("b")
        seen = about(*voters, kind="vote", expected=0.6)
        learner.feedback(replace(seen, alone="a", alone_quality=0.5), 1.0)
    assert learner.predictors.gains.by_kind()["vote"] > 0.2


def test_who_was_not_asked_is_expected_to_agree_as_usual() -> None:
    """A cascade that stops at its first, right model has gained little on its second."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    for _ in range(20):
        seen = about(step("a"), kind="cascade", expected=0.6)
        learner.feedback(replace(seen, alone="b", alone_quality=0.5), 1.0)
    # At the prior, a right answer of one makes another half as unsure as it was.
    assert 0.0 < learner.predictors.gains.by_kind()["cascade"] < 0.2


def test_votes_teach_how_models_agree() -> None:
    """Also after a restart; models that never err together come apart."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    tasks = features().tasks
    before = learner.predictors.agreement.correlation(tasks)[0, 1]
    for n in range(60):
        first, other = step("a"), step("b", chosen=False, agrees=False)
        learner.feedback(about(first, other, kind="vote"), float(n % 2))
    after = learner.predictors.agreement.correlation(tasks)[0, 1]
    again = Learner(models({"a": 1, "b": 1}), 1000.0)
    again.restore(unpacked(packed(learner.to_arrays())))
    assert after < before - 0.2
    assert again.predictors.agreement.correlation(tasks)[0, 1] == after


def test_preferences_alone_put_models_in_order() -> None:
    """By as much as they are preferred: the odds of quality follow the odds of preference."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    rng = np.random.default_rng(3)
    for _ in range(800):
        learner.preference(about(step("a")), about(step("b")), float(rng.random() < 0.8))
    first, second = quality(learner)
    odds = first / (1.0 - first) * (1.0 - second) / second
    assert odds == pytest.approx(4.0, rel=0.4)
    assert first + second == pytest.approx(1.0, abs=0.1)


def test_equals_that_are_called_equal_stay_as_good_as_they_were() -> None:
    """A preference is no score: 0.5 says that neither is better, not that both are middling."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    for _ in range(50):
        learner.feedback(about(step("a")), 1.0)
        learner.feedback(about(step("b")), 1.0)
    before = quality(learner)
    for _ in range(50):
        learner.preference(about(step("a")), about(step("b")), 0.5)
    assert quality(learner) == pytest.approx(before, abs=0.02)


def test_what_was_learned_survives_packing() -> None:
    """Also where the fleet has another model by then."""
    learner = Learner(models({"a": 1, "b": 1}), 1000.0)
    for _ in range(20):
        learner.feedback(about(step("b"), kind="cascade"), 1.0)
    saved = packed(learner.to_arrays())
    other = Learner(models({"new": 1, "b": 1}), 1000.0)
    other.restore(unpacked(saved))
    assert quality(other)[1] == pytest.approx(quality(learner)[1])
    assert other.predictors.gains.by_kind() == learner.predictors.gains.by_kind()
    same = Learner(models({"a": 1, "b": 1}), 1000.0)
    same.restore(unpacked(saved))
    assert quality(same) == pytest.approx(quality(learner))


def test_damaged_or_later_state_is_refused() -> None:
    """With ValueError, so that the router can start from its priors."""
    learner = Learner(models({"a": 1}), 1000.0)
    with pytest.raises(ValueError, match="damaged"):
        unpacked(packed(learner.to_arrays())[:100])
    later = learner.to_arrays() | {"version": np.array(99)}
    with pytest.raises(ValueError, match="version"):
        learner.restore(later)


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize(
    "damage", [{"confidence.version": np.array(99.0)}, {"gains.sums": np.zeros(7)}]
)
def test_state_that_is_readable_in_part_is_not_taken_in(
    damage: dict[str, NDArray[np.float64]], *, taught: bool
) -> None:
    """Its feedback is learned again by whoever finds it damaged, and must not count twice."""
    teacher, learner = (Learner(models({"a": 1, "b": 1}), 1000.0) for _ in range(2))
    for _ in range(20):
        teacher.feedback(about(step("b"), kind="cascade"), 1.0)
    before = quality(learner)
    with pytest.raises((ValueError, KeyError)):
        learner.restore(teacher.to_arrays() | damage, taught=taught)

    assert quality(learner) == before
    assert not learner.predictors.gains.by_kind()


def test_a_storm_of_answers_is_counted_whole_and_learned_in_part() -> None:
    """Fifty a second are enough to know a model's speed."""
    learner = Learner(models({"a": 1}), 1000.0)
    fleet = Fleet(models({"a": 1}), Router(), ManualClock())
    lease = fleet.begin("a-0", 5.0, 5.0)
    usage = inference_pb.Usage(completion_tokens=60)
    last = inference_pb.GenerateResponse(finished=inference_pb.Finished(usage=usage))
    call = Call(model="a", replica="a-0", part="single", total_s=1.0, ttft_s=0.5, last=last)
    before = learner.predictors.length.predict(features())[0]
    learner.answered(call, lease, features())
    once = learner.predictors.length.predict(features())[0]
    for _ in range(9):
        learner.answered(call, lease, features())
    assert before < once == learner.predictors.length.predict(features())[0]
    general = next(b for b in learner.beliefs() if b[0].task == "general")
    assert general[1:] == pytest.approx((0.5, 1.0))
    call.total_s = 1.1
    learner.answered(call, lease, features())
    assert learner.predictors.length.predict(features())[0] > once
