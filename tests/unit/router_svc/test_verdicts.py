"""What one worker learned, taken over by another."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from router_svc import records
from router_svc.core.decide import decide
from router_svc.core.reward import Step
from router_svc.core.types import Policy
from router_svc.journal import Journal
from router_svc.learner import Learner, Remembered
from router_svc.profiler import Profiled
from router_svc.verdicts import Verdicts
from services.kit.config import Model, Replica
from services.kit.errors import UnknownDecisionError
from tests.unit.router_svc.fixtures import ask, candidates, features

MODELS = tuple(Model(name=n, dir=".", replicas=(Replica(listen="x:1"),)) for n in "ab")


def taught() -> Learner:
    """A learner that was told of forty answers of a."""
    learner = Learner(MODELS, 2000.0)
    step = Step(
        model="a",
        replica="a-0",
        part="single",
        prompt_tokens=1,
        completion_tokens=1,
        cost_usd=0.0,
        ttft_s=0.1,
        total_s=0.2,
        chosen=True,
    )
    about = Remembered(features=features(), kind="single", expected_quality=0.5, steps=(step,))
    for _ in range(40):
        learner.feedback(about, 0.0)
    return learner


async def test_what_feedback_taught_is_taken_over_once(tmp_path: Path) -> None:
    """The rest a worker knows from its own calls; without news there is nothing to take."""
    first, second = taught(), Learner(MODELS, 2000.0)
    second.step_time("b", 1.0, 0.5)
    own = second.predictors.latency.to_arrays()
    journals = [Journal(tmp_path / "shared.sqlite3") for _ in range(2)]
    teacher, follower = Verdicts(first, journals[0]), Verdicts(second, journals[1])
    assert not await follower.follow()
    await teacher.save()
    assert await follower.follow()
    assert not await follower.follow()
    for one, other in zip(
        *(learner.predictors.quality.predict(features()) for learner in (first, second)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert second.predictors.quality.predict(features())[0][0] < 0.3
    for name, array in second.predictors.latency.to_arrays().items():
        np.testing.assert_array_equal(array, own[name])
    for journal in journals:
        await journal.close()


async def test_a_decision_that_is_on_its_way_to_the_journal_is_waited_for(tmp_path: Path) -> None:
    """Where there are other workers; where there are none, it is unknown at once."""
    journals = [Journal(tmp_path / "shared.sqlite3") for _ in range(2)]
    verdicts, found = Verdicts(Learner(MODELS, 2000.0), journals[0]), candidates([0.5, 0.6])
    made = decide(ask(), found, Policy(), np.random.default_rng(1), gains={})
    with pytest.raises(UnknownDecisionError):
        await verdicts.feedback("d-1", 1.0, feedback_id="", source="")
    verdicts.patience_s = 0.5
    told = asyncio.create_task(verdicts.feedback("d-1", 1.0, feedback_id="", source=""))
    await asyncio.sleep(0)
    profiled = Profiled(features=features(), source="lexical")
    journals[1].add(records.decision("d-1", 1.0, made=made, ask=ask(), profiled=profiled))
    assert await told
    for journal in journals:
        await journal.close()
