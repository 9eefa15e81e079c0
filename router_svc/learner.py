"""Learn from outcomes and feedback; remember what was learned across restarts."""

import asyncio
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from router_svc import metrics
from router_svc.core import adapters, reward
from router_svc.core.adapters import Adapters
from router_svc.core.agreement import Agreement, Member, differing
from router_svc.core.confidence import Confidence
from router_svc.core.features import Features, Floats
from router_svc.core.hedging import Stalls
from router_svc.core.judge import Judge, Verdict
from router_svc.core.latency import Latency
from router_svc.core.length import Length
from router_svc.core.predict import Gains, Predictors, Prices
from router_svc.core.quality import Belief, Quality
from router_svc.core.reward import Step
from router_svc.fleet import Lease
from router_svc.run import Call
from services.kit.config import Model, replica_name

log = structlog.get_logger()

Arrays: TypeAlias = dict[str, NDArray[Any]]

VERSION: Final = 1
"""Of the saved state as a whole; each predictor has its own besides."""
_TEACH_EVERY_S: Final = 0.02
"""More answers of a model in a second teach nothing more about its speed, and cost as much each."""
_TRUSTED: Final = 0.5
"""Verdicts that count less teach about quality alone: the others take no weights."""
_ADAPTERS: Final = "adapters."
_TAUGHT: Final = ("quality", "judge", "confidence", "agreement")
"""What feedback teaches; the rest comes of calls that a router sees by itself."""
_PARTS: Final = ("quality", "judge", "confidence", "latency", "length", "agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What feedback on a decision needs to know about it."""

    features: Features
    kind: str
    expected_quality: float
    tenant: str = ""
    decided_s: float = 0.0
    """Seconds since 1970."""
    steps: tuple[Step, ...] = ()
    alone: str = ""
    """The single model that would have been asked instead; empty where nobody knows any more."""
    alone_quality: float = 0.0
    """What was expected of it."""


class Learner:
    """Everything that is learned, and how. Owned by the event loop."""

    def __init__(self, models: Sequence[Model], half_life_outcomes: float) -> None:
        names = [model.name for model in models]
        self._index = {name: i for i, name in enumerate(names)}
        priors = priors_of(models)
        self.predictors = Predictors(
            judge=Judge(Quality(names, priors, half_life_outcomes=half_life_outcomes)),
            confidence=Confidence(names),
            latency=Latency(names, replicas=replica_names(models)),
            length=Length(names),
            gains=Gains(),
            stalls=Stalls(),
            agreement=Agreement(names),
        )
        self.adapters = Adapters(names)
        self.prices = Prices(
            usd_per_prompt_token=np.array([m.usd_per_m_prompt_tokens for m in models]) / 1e6,
            usd_per_completion_token=np.array([m.usd_per_m_completion_tokens for m in models])
            / 1e6,
            default_max_tokens=np.array([float(m.default_max_tokens) for m in models]),
        )
        self.dirty = False
        """Whether anything was learned since the state was saved."""
        self._names = names
        self._times = np.zeros((len(names), 4, 3))
        """Per model and kind of task: answers, sum of times to first token, sum of totals."""
        self._taught_s = np.full(len(names), -np.inf)

    def cost_usd(self, model: str, prompt_tokens: int, completion_tokens: int) -> float:
        """Price one call."""
        return self.prices.cost_usd(self._index[model], prompt_tokens, completion_tokens)

    def confidence(self, model: str, mean_logprob: float, quality: float) -> float:
        """Return the probability that an answer is right."""
        return self.predictors.confidence.predict(model, mean_logprob, quality)

    def answered(self, call: Call, lease: Lease, features: Features) -> None:
        """Learn from the time and length of an answer, whether it was right or not."""
        model, task = self._index[call.model], int(features.tasks.argmax())
        self._times[model, task] += (1.0, call.ttft_s, call.total_s)
        self.dirty = True
        if call.expected_s > 0.0:
            metrics.predicted(call.model, "total", call.total_s, call.expected_s, call.total_p90_s)
            metrics.predicted(
                call.model, "ttft", call.ttft_s, call.expected_ttft_s, call.ttft_p90_s
            )
        ended_s = lease.began_s + call.total_s
        if ended_s - self._taught_s[model] < _TEACH_EVERY_S:
            return
        self._taught_s[model] = ended_s
        lengths = call.answer_tokens
        self.predictors.length.learn(call.model, features, sum(lengths) // len(lengths))
        if len(lengths) > 1:
            # Its time is that of a batch of its own making, which `lease.load` is not.
            return
        self.predictors.latency.learn(
            call.model,
            lease.load,
            prompt_tokens=max(call.prompt_tokens - call.cached_tokens, 1),
            output_tokens=call.completion_tokens,
            ttft_s=call.ttft_s,
            total_s=call.total_s,
            expected_tokens=call.output_tokens or None,
            said_p90_s=(call.ttft_p90_s, call.total_p90_s) if call.expected_s > 0.0 else None,
        )

    def silent(self, call: Call, silent_s: float, *, begun: bool) -> None:
        """Learn how often calls stall; one stopped before it was late says nothing."""
        if call.late_s > 0.0 and (begun or silent_s > call.late_s):
            self.predictors.stalls.learn(silent_s, call.late_s)

    def step_time(self, model: str, running: float, step_s: float) -> None:
        """Learn from a reported decode step time."""
        self.predictors.latency.learn_step(model, running, step_s)

    def feedback(self, about: Remembered, score: float, source: str = "user") -> None:
        """Learn from the *score* in [0, 1] that *source* gives the answer that the caller saw.

        What the source is not trusted in teaches only as much as it is.
        """
        learned, judge = reward.scores(about.steps, score), self.predictors.judge
        expected = judge.judge(about.features).quality
        believed = 1.0
        for step, each in learned:
            i = self._index.get(step.model)
            if i is None:
                continue
            weight = judge.learn(
                about.features,
                Verdict(
                    model=step.model,
                    score=each,
                    source=about.tenant or source,
                    decided_s=about.decided_s,
                ),
            )
            believed = min(believed, weight)
            if step.mean_logprob is not None and weight >= _TRUSTED:
                self.predictors.confidence.learn(
                    step.model, step.mean_logprob, float(expected[i]), each
                )
            self.adapters.noted(about.features)
        metrics.TRUST.observe(believed)
        if learned:
            if believed >= _TRUSTED:
                self._gain(about, score, expected)
                self._agreement(about, score, expected)
            self.dirty = True

    def preference(
        self, about: Remembered, other: Remembered, preference: float, source: str = "user"
    ) -> None:
        """Learn from how much better one answer is than another: 1 better, 0.5 equal, 0 worse.

        What a preference says of one answer's quality is what it is above the expectation
        (`reward.preferred`); so one that was expected teaches nothing.
        """
        sides = [(side, self._answerer(side)) for side in (about, other)]
        (one, mine), (two, theirs) = sides
        if mine is None or theirs is None:
            return
        first, second = (
            float(self.predictors.quality.predict(side.features)[0][self._index[model]])
            for side, model in ((one, mine), (two, theirs))
        )
        targets = reward.preferred(first, second, preference)
        for (side, model), target in zip(((one, mine), (two, theirs)), targets, strict=True):
            self.predictors.judge.learn(
                side.features,
                Verdict(
                    model=model,
                    score=target,
                    source=side.tenant or source,
                    decided_s=side.decided_s,
                ),
            )
        self.dirty = True

    def _answerer(self, about: Remembered) -> str | None:
        """Name the model whose answer was shown, None where nothing is known of it any more."""
        models = (step.model for step in about.steps if step.chosen)
        return next((model for model in models if model in self._index), None)

    def _gain(self, about: Remembered, score: float, expected: Floats) -> None:
        """Learn what an ensemble added to the model that would have been asked alone.

        Where that was not asked, what is known of it is how it agrees with who answered.
        """
        i = self._index.get(about.alone)
        if about.kind == "single" or i is None:
            return
        rival = Member(model=about.alone, quality=float(expected[i]), score=None)
        told = {step.model: each for step, each in reward.joint(about.steps, score)}
        if about.alone in told:
            each = told[about.alone]
            alone = differing(rival.quality) if each is None else each
        elif (answerer := self._answerer(about)) is not None:
            quality = float(expected[self._index[answerer]])
            seen = Member(model=answerer, quality=quality, score=score)
            alone = self.predictors.agreement.expected(about.features.tasks, rival, seen)
        else:
            return
        added = about.expected_quality - about.alone_quality
        self.predictors.gains.learn(about.kind, added, score - alone)

    def _agreement(self, about: Remembered, score: float, expected: Floats) -> None:
        """Learn which models succeed together, where several answered; *expected* (M,) before."""
        answered = reward.joint(about.steps, score)
        if len(answered) < 2:  # noqa: PLR2004 - a pair
            return
        members = [
            Member(model=step.model, quality=float(expected[i]), score=each)
            for step, each in answered
            if (i := self._index.get(step.model)) is not None
        ]
        self.predictors.agreement.learn(about.features.tasks, members)

    async def study(self) -> bool:
        """Learn again from what is remembered, if it is time to, and return whether it was.

        In another thread: no decision waits for it, and outcomes go on being learned.
        """
        quality, adapted = self.predictors.quality, self.adapters
        if (lesson := quality.lesson()) is None:
            return False
        quality.adopt(await asyncio.to_thread(lesson.learn))
        before, encoder, newest = adapted.adapted(), adapted.encoder, adapted.outcomes
        found = await asyncio.to_thread(adapters.learn, lesson.seen, newest, lesson.models)
        adapted.adopt(found, encoder)
        if adapted.adapted() != before:
            log.info("embeddings adapted", models=adapted.adapted())
        self.dirty = True
        return True

    def beliefs(self) -> list[tuple[Belief, float, float]]:
        """Return every belief with the mean time to first token and mean total behind it."""
        found = []
        for i, belief in enumerate(self.predictors.quality.beliefs()):
            answers, ttft_s, total_s = self._times[
                self._index[belief.model], i % self._times.shape[1]
            ]
            count = max(answers, 1.0)
            found.append((belief, float(ttft_s / count), float(total_s / count)))
        return found

    def to_arrays(self) -> Arrays:
        """Return a copy of all that was learned."""
        arrays: Arrays = {"version": np.array(VERSION), "models": np.array(self._names)}
        for part in _PARTS:
            state = getattr(self.predictors, part).to_arrays()
            arrays |= {f"{part}.{name}": array for name, array in state.items()}
        state = self.adapters.to_arrays()
        arrays |= {f"{_ADAPTERS}{name}": array for name, array in state.items()}
        gains = self.predictors.gains
        arrays["gains.kinds"] = np.array(list(gains.sums), dtype=np.str_)
        arrays["gains.sums"] = np.array(list(gains.sums.values()))
        arrays["gains.counts"] = np.array([gains.counts[k] for k in gains.sums])
        arrays["times"] = self._times.copy()
        stalls = self.predictors.stalls
        arrays["stalls"] = np.array([stalls.calls, stalls.stalled])
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]], *, taught: bool = False) -> None:
        """Take in what `to_arrays` returned; with *taught*, only what feedback teaches.

        Raises ValueError or KeyError where it cannot be, and then has taken in nothing: what is
        learned anew from feedback must not count twice.
        """
        before = self.to_arrays()
        try:
            self._restore(arrays, taught=taught)
        except (ValueError, KeyError):
            self._restore(before, taught=taught)
            raise

    def _restore(self, arrays: Mapping[str, NDArray[Any]], *, taught: bool) -> None:
        if int(arrays["version"]) != VERSION:
            raise ValueError(f"learned state of version {arrays['version']}, not {VERSION}")
        for part in _TAUGHT if taught else _PARTS:
            prefix = f"{part}."
            state = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            if part == "agreement" and not state:
                continue  # saved before it was learned
            getattr(self.predictors, part).restore(state)
        if state := {
            k.removeprefix(_ADAPTERS): v for k, v in arrays.items() if k.startswith(_ADAPTERS)
        }:
            self.adapters.restore(state)
        kinds = arrays["gains.kinds"].tolist()
        gains = self.predictors.gains
        gains.sums = dict(zip(kinds, arrays["gains.sums"].tolist(), strict=True))
        gains.counts = dict(zip(kinds, arrays["gains.counts"].tolist(), strict=True))
        if taught:
            return
        for row, name in enumerate(arrays["models"].tolist()):
            if (i := self._index.get(name)) is not None:
                self._times[i] = arrays["times"][row]
        stalls = self.predictors.stalls
        stalls.calls, stalls.stalled = arrays.get("stalls", np.zeros(2)).tolist()


def replica_names(models: Sequence[Model]) -> list[str]:
    """Return the names of all replicas, in the order of the fleet's arrays."""
    return [replica_name(model.name, i) for model in models for i in range(len(model.replicas))]


def priors_of(models: Sequence[Model]) -> dict[str, dict[str, float]]:
    """Return the configured expectations: model to task to quality."""
    return {m.name: {str(k): float(v) for k, v in m.priors.items()} for m in models}


def packed(arrays: Arrays) -> bytes:
    """Encode arrays for the journal."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def unpacked(data: bytes) -> Arrays:
    """Decode what `packed` made. Raises ValueError where it is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"the learned state is damaged: {error}") from error
