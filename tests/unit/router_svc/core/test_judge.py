"""What is believed follows changes, and does not follow liars."""

import numpy as np
import pytest

from router_svc.core.drift import PROBE_RATIO
from router_svc.core.features import TASKS, Features, lexical_profile
from router_svc.core.judge import Judge, Verdict
from router_svc.core.quality import Quality
from router_svc.core.trust import Trust

CODE = lexical_profile("What does sorted([3, 1, 2])[0] return in Python?")
TASK = int(CODE.tasks.argmax())


def judge() -> Judge:
    """Two models, a better one and a worse one."""
    return Judge(Quality(("good", "bad"), {"good": {"code": 0.8}, "bad": {"code": 0.3}}))


def told(
    about: Judge,
    score: float,
    count: int,
    *,
    model: str = "good",
    sources: tuple[str, ...] = ("a", "b", "c"),
    at_s: float = 0.0,
) -> list[float]:
    """Give *count* verdicts, the sources in turn; return what each counted for."""
    return [
        about.learn(
            CODE,
            Verdict(model=model, score=score, source=sources[n % len(sources)], decided_s=at_s + n),
        )
        for n in range(count)
    ]


def believed(about: Judge, features: Features = CODE) -> list[float]:
    """Expected quality of both."""
    return [float(q) for q in about.judge(features).quality]


def test_a_long_good_past_does_not_outweigh_a_change() -> None:
    """A dozen failures after hundreds of successes, and the model is worth less than the other."""
    about = judge()
    told(about, 1.0, 300)
    told(about, 0.0, 12, at_s=300.0)
    assert believed(about)[0] < believed(about)[1]
    assert about.quality.predict(CODE)[0][0] > 0.6


def test_a_change_makes_unsure() -> None:
    """What was well known is not, right after it changed."""
    about = judge()
    told(about, 1.0, 300)
    before = about.judge(CODE).stddev[0]
    told(about, 0.0, 12, at_s=300.0)
    assert about.judge(CODE).stddev[0] > 2.0 * before


def test_a_change_corrects_a_model_alone_as_among_all() -> None:
    """And leaves those alone that did not change."""
    about = judge()
    told(about, 1.0, 300)
    told(about, 0.0, 12, at_s=300.0)
    mean, _ = about.quality.predict(CODE)
    alone = [about.drift.believed(i, TASK, float(q)) for i, q in enumerate(mean)]
    assert alone == pytest.approx(believed(about))
    assert alone[0] < mean[0] - 0.1
    assert alone[1] == mean[1]


def test_what_was_before_a_change_is_not_learned_again() -> None:
    """After an alarm the memory counts only outcomes of the block since the change."""
    about = judge()
    told(about, 1.0, 150)
    told(about, 0.0, 40)
    assert about.drift._changed_s.max() > -np.inf
    lesson = about.quality.lesson()
    assert lesson is not None
    counted = lesson.seen.targets[(lesson.seen.models == 0) & (lesson.seen.weights > 0.0)]
    assert 0 < len(counted) <= 40
    assert counted.max() < 0.0


def test_a_fallen_model_is_probed_until_it_recovers() -> None:
    """A bounded share of its own task, only where it might be the best, and never before."""
    about = judge()
    told(about, 1.0, 300)
    assert about.judge(CODE).probes.tolist() == [0.0, 0.0]
    told(about, 0.0, 12, at_s=300.0)
    assert about.judge(CODE).probes.tolist() == [PROBE_RATIO, 0.0]
    other = lexical_profile("Is a lemon a fruit or a colour?")
    assert other.tasks.argmax() != TASK
    assert about.judge(other).probes.tolist() == [0.0, 0.0]
    told(about, 1.0, 8, at_s=400.0)
    assert about.judge(CODE).probes.tolist() == [0.0, 0.0]
    assert believed(about)[0] > 0.6


def test_a_model_that_fell_below_others_is_not_probed_in_vain() -> None:
    """What was worse than the best before it fell would not be chosen when it recovers."""
    about = judge()
    told(about, 1.0, 100, model="bad")
    told(about, 0.7, 60)
    told(about, 0.0, 20, at_s=100.0)
    assert about.judge(CODE).probes.tolist() == [0.0, 0.0]


def test_late_feedback_says_nothing_about_a_change() -> None:
    """Praise of answers from before the fall does not bring the model back."""
    about = judge()
    told(about, 1.0, 300)
    told(about, 0.0, 20, at_s=1000.0)
    fallen = believed(about)[0]
    told(about, 1.0, 20, at_s=500.0)
    assert believed(about)[0] < fallen + 0.15


def test_a_liar_loses_its_say() -> None:
    """Forty lies in a row from one of several sources hardly move what is believed."""
    about = judge()
    told(about, 1.0, 200)
    before = believed(about)[0]
    weights = told(about, 0.0, 40, sources=("liar",), at_s=200.0)
    assert believed(about)[0] > before - 0.1
    assert weights[-1] < 0.01
    assert told(about, 1.0, 3, at_s=300.0) == [1.0, 1.0, 1.0]


def test_without_trust_the_same_lies_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack of the test above is one."""
    monkeypatch.setattr(Trust, "learn", lambda *_: 1.0)
    monkeypatch.setattr(Trust, "alone", lambda *_: True)
    about = judge()
    told(about, 1.0, 200)
    before = believed(about)[0]
    told(about, 0.0, 40, sources=("liar",), at_s=200.0)
    assert believed(about)[0] < before - 0.5


def test_a_lone_source_is_believed() -> None:
    """There is nobody that it could contradict."""
    about = judge()
    assert set(told(about, 1.0, 100, sources=("only",))) == {1.0}
    assert set(told(about, 0.0, 30, sources=("only",), at_s=100.0)) == {1.0}
    assert believed(about)[0] < 0.5


def test_a_change_that_all_see_costs_nobody_their_say() -> None:
    """Three honest sources meet the same fall and stay trusted."""
    about = judge()
    told(about, 1.0, 300)
    assert min(told(about, 0.0, 60, at_s=300.0)) > 0.5
    assert min(told(about, 0.0, 30, at_s=400.0)) == 1.0


def test_what_was_found_survives_a_restart() -> None:
    """Falls, corrections and distrust are there again, wherever a model is listed."""
    about = judge()
    told(about, 1.0, 300)
    told(about, 0.0, 12, at_s=300.0)
    told(about, 1.0, 30, sources=("liar",), at_s=400.0)
    again = Judge(Quality(("new", "bad", "good"), {"good": {"code": 0.8}, "bad": {"code": 0.3}}))
    again.quality.restore(about.quality.to_arrays())
    again.restore(about.to_arrays())
    assert believed(again)[2] == believed(about)[0]
    assert again.judge(CODE).probes[2] == about.judge(CODE).probes[0]
    verdict = Verdict(model="good", score=1.0, source="liar", decided_s=500.0)
    assert again.learn(CODE, verdict) == about.learn(CODE, verdict)


def test_state_of_an_earlier_version_is_no_change() -> None:
    """A journal from before there was any of this restores as it did."""
    about = judge()
    about.restore({})
    assert believed(about) == pytest.approx([0.8, 0.3], abs=0.2)
    with pytest.raises(ValueError, match="version 9"):
        about.restore({**judge().to_arrays(), "drift.version": np.array(9)})
    with pytest.raises(ValueError, match="version 9"):
        about.restore({**judge().to_arrays(), "trust.version": np.array(9)})


def test_many_sources_take_bounded_memory() -> None:
    """The longest silent are forgotten."""
    about = judge()
    for n in range(300):
        told(about, 1.0, 1, sources=(f"s{n}",))
    assert about.to_arrays()["trust.heard"].shape == (256, 2, 2, len(TASKS), 2)


def test_a_million_outcomes_take_as_much_memory_as_a_thousand() -> None:
    """Nothing that is learned grows with the outcomes, and sixteen models take few megabytes."""
    names = tuple(f"m{i}" for i in range(16))
    about, sizes = Judge(Quality(names, {}, remembered_outcomes=100)), []
    for _ in range(2):
        for n in range(100):
            verdict = Verdict(model=names[n % 16], score=float(n % 2), source=f"s{n % 9}")
            about.learn(CODE, verdict)
        if lesson := about.quality.lesson():
            about.quality.adopt(lesson.learn())
        state = {**about.quality.to_arrays(), **about.to_arrays()}
        sizes.append(sum(array.nbytes for array in state.values()))
    assert sizes[0] == sizes[1] < 4e6  # a full memory adds 4 MB
