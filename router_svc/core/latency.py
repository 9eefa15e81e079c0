"""When a replica would answer: quantiles of time to first token and of the whole answer.

An analytic model per served model, linear in what load means to the device:

    ttft = overhead + prefill * (prompt tokens ahead and own) + step of a running batch
           + wait for a slot
    step = step0 + step1 * requests in the batch
    total = ttft + step * (output tokens - 1)

Its coefficients start at a prior and follow observations by recursive ridge regression in relative
error, with forgetting. A replica's own machine may be slower or faster than its model's others: one
factor each, shrunk towards 1. Residuals are log-normal with an online variance, and uncertainty
also grows with the age of the report. Where they are not log-normal, the 90 % quantile is moved
until it holds in nine cases of ten (adaptive conformal inference: Gibbs and Candès, 2021).
N = rows asked about, R = replicas, M = models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import ONE, ZERO, constant
from router_svc.core.loads import BATCH, MET, PROMPT, QUEUE, RUNNING, Ints, ReplicaLoads
from router_svc.core.ridge import Floats, Ridges

Array: TypeAlias = NDArray[Any]

VERSION: Final = 1
_Z90: Final = 1.2816
"""The 90 % quantile of the standard normal distribution."""
_NOISE: Final = 0.1
"""Assumed variance of a relative error: how fast the prior yields."""
_SPREAD: Final = 0.15
"""Variance of a log residual before any is seen."""
_COVERED: Final = 0.9
_COVERING: Final = 0.2
"""How far a miss moves the 90 % quantile, in shares of its distance from the median."""
_NARROWEST, _WIDEST = 0.01, 10.0
_TRIALS: Final = 15.0
"""A model's first answers tell its prior's mistake, not how its times spread."""
_SPREAD_OUTCOMES: Final = 10.0
_ALIKE: Final = 0.005
"""Variance of what sets replicas of a model apart, in logarithms, before any answer is seen."""
_STALE_VARIANCE_PER_S: Final = 0.05
_STALE_MOST_S: Final = 20.0
_STEP_OUTCOMES: Final = 0.05
"""What a reported step time counts for: reports are many and say much the same."""
_LEAST: Final = 0.02
"""No coefficient falls below this share of its prior: time does not run backwards."""
_SURPRISE: Final = 20.0
"""No single time counts as further from its expectation than this factor."""
_PRICES: Final = slice(4)
"""Rows of what is known of a model: of what a request `MET`, in that order."""
_PREFILL, _OVERHEAD, _STEP, _OFF, _NOISY = 2, 4, 5, 6, 7
_PACED: Final = slice(_PREFILL, _STEP + 1)
"""Those that are longer on a slower machine."""
_SHORTEST_S: Final = 1e-5
_LONGEST_S: Final = 1e5
_SHORTEST, _LONGEST = constant(_SHORTEST_S), constant(_LONGEST_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPrior:
    """What is assumed of a model on its hardware before the first answer."""

    overhead_s: float = 0.005
    prefill_s_per_token: float = 0.0002
    step_s: float = 0.004
    step_s_per_running: float = 0.0005


class Times:
    """Median times in seconds on R replicas; every array is (R,). Nobody changes it."""

    __slots__ = ("first_s", "loads", "step_s", "total_s")

    def __init__(
        self, loads: ReplicaLoads, first_s: Floats, total_s: Floats, step_s: Floats
    ) -> None:
        self.loads = loads
        self.first_s = first_s
        """Time to first token."""
        self.total_s = total_s
        self.step_s = step_s
        """Time per output token after the first."""


class Quantiles:
    """Predicted times on one replica, in seconds. Nobody changes it; a plain class is fast."""

    __slots__ = (
        "total_p50_s",
        "total_p90_s",
        "total_sigma",
        "tpot_s",
        "ttft_p50_s",
        "ttft_p90_s",
        "wait_s",
    )

    def __init__(  # noqa: PLR0917 - made for every candidate of a decision
        self,
        ttft_p50_s: float,
        ttft_p90_s: float,
        total_p50_s: float,
        total_p90_s: float,
        tpot_s: float,
        wait_s: float,
        total_sigma: float,
    ) -> None:
        self.ttft_p50_s = ttft_p50_s
        self.ttft_p90_s = ttft_p90_s
        self.total_p50_s = total_p50_s
        self.total_p90_s = total_p90_s
        self.tpot_s = tpot_s
        """Expected time per output token after the first."""
        self.wait_s = wait_s
        """Part of the times that the request would wait for a slot."""
        self.total_sigma = total_sigma
        """Standard deviation of the logarithm of the total."""


class Latency:
    """Latency of every model. Mutable, one owner."""

    def __init__(
        self,
        models: Sequence[str],
        priors: Mapping[str, LatencyPrior] | None = None,
        *,
        replicas: Sequence[str] = (),
        half_life_outcomes: float = 200.0,
    ) -> None:
        """Start at *priors*; after *half_life_outcomes* answers an old one weighs half.

        Without *replicas* there is one of each model, of its name.
        """
        self.models = tuple(models)
        self.replicas = tuple(replicas) or self.models
        self._pace = np.zeros((2, len(self.replicas)))
        """(2, R) Answers, and the sum of what their times' logarithms were above those predicted
        for their model."""
        self._level = np.zeros((2, len(self.models)))
        """(2, M) The same of all replicas of a model: what is wrong with its own prediction."""
        self._index = {name: i for i, name in enumerate(self.models)}
        chosen = [(priors or {}).get(name, LatencyPrior()) for name in self.models]
        self._forgetting = 0.5 ** (1.0 / half_life_outcomes)
        first = [[p.overhead_s, p.prefill_s_per_token, 1.0, 1.0] for p in chosen]
        step = [[p.step_s, p.step_s_per_running] for p in chosen]
        self._first = _Rates(first, self._forgetting)
        self._step = _Rates(step, self._forgetting)
        self._residuals = np.zeros((2, 2, len(self.models)))
        """For ttft and total: outcomes, and the sum of their squared log residuals; (2, 2, M)."""
        self._reach = np.ones((2, len(self.models)))
        """For ttft and total: 90 % quantile over what log-normal residuals would have; (2, M)."""
        self._table: Floats | None = None
        """What `_by_model` found since anything was learned."""
        self._known: tuple[Floats, Floats, Floats, Floats, Floats] | None = None
        """What `_figures` found since anything was learned."""
        self._known_of: tuple[Ints, Ints] | tuple[None, None] = (None, None)
        """The replicas and models that it was asked about."""
        self._spread_of: list[tuple[float, float, float, float]] = []
        """What `_spreads` found since anything was learned."""

    def predict(
        self, loads: ReplicaLoads, prompt_tokens: Floats | float, output_tokens: Floats
    ) -> Times:
        """Predict medians for a request of *prompt_tokens* and *output_tokens* (N,) or () each.

        *prompt_tokens* are those to be fed: what a replica has cached takes no time.
        """
        overhead, step, prefill, prices, _ = self._figures(loads)
        busy, queue, feeding, batch = prices * loads.figures[MET]
        step_s = np.maximum(step + batch, _SHORTEST)
        first = overhead + feeding + prefill * prompt_tokens + (busy + queue) * step_s
        first = np.minimum(np.maximum(first, _SHORTEST), _LONGEST)
        total = np.minimum(first + step_s * np.maximum(output_tokens - ONE, ZERO), _LONGEST)
        return Times(loads, first, total, step_s)

    def quantiles(self, times: Times, i: int) -> Quantiles:
        """Return what is predicted of the *i*-th replica of *times*, and how sure that is."""
        loads = times.loads
        model = loads.model.item(i)
        first_s, total_s, step_s = (
            times.first_s.item(i),
            times.total_s.item(i),
            times.step_s.item(i),
        )
        stale = _STALE_VARIANCE_PER_S * min(loads.age_of(i), _STALE_MOST_S)
        first_variance, total_variance, first_reach, total_reach = self._spreads()[model]
        sigma = sqrt(total_variance + stale)
        return Quantiles(
            first_s,
            first_s * exp(first_reach * sqrt(first_variance + stale)),
            total_s,
            total_s * exp(total_reach * sigma),
            step_s,
            loads.figures.item(QUEUE, i) * step_s,
            sigma,
        )

    def learn(
        self,
        model: str,
        load: ReplicaLoads,
        *,
        prompt_tokens: int,
        output_tokens: int,
        ttft_s: float,
        total_s: float,
        expected_tokens: float | None = None,
        said_p90_s: tuple[float, float] | None = None,
    ) -> None:
        """Take in one answer, with its replica's *load* (one row) when it was sent there.

        With *expected_tokens*, as predicted then, the spread covers the length's uncertainty too.
        *said_p90_s* are the 90 % quantiles of ttft and total that were predicted then, which knew
        less of the load than is known now: they are what is to cover nine of ten.
        Raises KeyError for an unknown model, ValueError unless 0 ≤ ttft ≤ total < ∞.
        """
        if not 0.0 <= ttft_s <= total_s < np.inf:
            raise ValueError(f"ttft_s, total_s: {ttft_s}, {total_s} are not in order")
        i = self._index[model]
        first_s, whole_s = max(ttft_s, _SHORTEST_S), max(total_s, _SHORTEST_S)
        expected = np.array(output_tokens if expected_tokens is None else expected_tokens)
        slower: float = self._figures(load)[-1].item(0)
        guess = self.quantiles(self.predict(load, prompt_tokens, expected), 0)
        self._forget()
        if self._level[0, i] >= _TRIALS:
            self._spread(i, 0, log(first_s / guess.ttft_p50_s))
            self._spread(i, 1, log(whole_s / guess.total_p50_s))
            ttft_p90_s, total_p90_s = said_p90_s or (guess.ttft_p90_s, guess.total_p90_s)
            self._cover(i, 0, within=first_s <= ttft_p90_s)
            self._cover(i, 1, within=whole_s <= total_p90_s)
        exact = guess.ttft_p50_s + guess.tpot_s * max(output_tokens - 1, 0)
        self._paced(int(load.replica[0]), i, log(slower * whole_s / exact))
        first_s, total_s, ttft_s = first_s / slower, total_s / slower, ttft_s / slower
        here = load.figures[:, 0].tolist()
        step_s, tokens = guess.tpot_s / slower, here[PROMPT] + prompt_tokens
        x = np.array([1.0, tokens, step_s * (here[RUNNING] > 0.0), here[QUEUE] * step_s])
        self._first.learn(i, x, first_s)
        if output_tokens > 1:
            step_s = max((total_s - ttft_s) / (output_tokens - 1), _SHORTEST_S)
            self._step.learn(i, np.array([1.0, here[BATCH]]), step_s)

    def learn_step(self, model: str, running: float, step_s: float) -> None:
        """Take in a decode step's mean time at *running* requests, as a replica reports it.

        Raises KeyError for an unknown model, ValueError unless 0 ≤ step < ∞ and 0 < running < ∞.
        """
        if not (0.0 <= step_s < np.inf and 0.0 < running < np.inf):
            raise ValueError(f"running, step_s: {running}, {step_s} are out of range")
        self._forget()
        x = np.array([1.0, running])
        self._step.learn(self._index[model], x, max(step_s, _SHORTEST_S), _STEP_OUTCOMES)

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        first_gram, first_moment = self._first.ridges.statistics()
        step_gram, step_moment = self._step.ridges.statistics()
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "first_gram": first_gram,
            "first_moment": first_moment,
            "step_gram": step_gram,
            "step_moment": step_moment,
            "residuals": self._residuals.copy(),
            "reach": self._reach.copy(),
            "replicas": np.array(self.replicas, dtype=np.str_),
            "pace": self._pace.copy(),
            "level": self._level.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models keep their prior.

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) != VERSION:
            raise ValueError(f"latency state of version {arrays['version']}, expected {VERSION}")
        self._forget()
        for j, name in enumerate(arrays["models"].tolist()):
            if (i := self._index.get(name)) is not None:
                self._first.ridges.restore(i, arrays["first_gram"][j], arrays["first_moment"][j])
                self._step.ridges.restore(i, arrays["step_gram"][j], arrays["step_moment"][j])
                self._residuals[:, :, i] = arrays["residuals"][:, :, j]
                if "level" in arrays:  # not known at first
                    self._reach[:, i] = arrays["reach"][:, j]
                    self._level[:, i] = arrays["level"][:, j]
        saved = arrays.get("replicas", np.array([], dtype=np.str_))  # not known at first
        for j, name in enumerate(saved.tolist()):
            if name in self.replicas and "level" in arrays:
                self._pace[:, self.replicas.index(name)] = arrays["pace"][:, j]

    def _figures(self, loads: ReplicaLoads) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return what is known of each replica, apart from its load: as in the formulae above.

        Overhead, a step and a token's prefill (N,), and the prices of what a request `MET` (4, N):
        a batch that runs and steps in a queue, in steps, tokens to feed and requests in a step. And
        how many times as long the replica takes as its model's others do (N,), which is in them.
        """
        if self._known_of[0] is loads.replica and self._known_of[1] is loads.model:
            assert self._known is not None
            return self._known
        of = self._by_model().take(loads.model, axis=1)
        count, sums = self._pace.take(loads.replica, axis=1)
        # The mean of a normal prior and normal answers: the noisier they are, the less they say.
        slower: Floats = np.exp((sums - count * of[_OFF]) / (count + of[_NOISY]))
        of[_PACED] *= slower
        known = (of[_OVERHEAD], of[_STEP], of[_PREFILL], of[_PRICES], slower)
        if len(slower) == len(self.replicas):  # the fleet's arrays: the same ones every time
            self._known, self._known_of = known, (loads.replica, loads.model)
        return known

    def _by_model(self) -> Floats:
        """Return what is known of each model: rows as named above, (8, M)."""
        if self._table is None:
            overhead, prefill, batch, wait = self._first.rates().T
            step, step_running = self._step.rates().T
            # What the model as a whole is off by is no replica's own: it is still being learned.
            off = self._level[1] / np.maximum(self._level[0], ONE)
            noisy = self._variance()[1] / _ALIKE
            rows = [batch, wait, prefill, step_running, overhead, step, off, noisy]
            self._table = np.array(rows)
        return self._table

    def _spreads(self) -> list[tuple[float, float, float, float]]:
        """Return how each model's times spread.

        Of time to first token and of the total: variance of the logarithm, and how many standard
        deviations the 90 % quantile is away.
        """
        if not self._spread_of:
            rows = [*self._variance().tolist(), *(_Z90 * self._reach).tolist()]
            self._spread_of = [*zip(*rows, strict=True)]
        return self._spread_of

    def _forget(self) -> None:
        """Drop what was found before something was learned."""
        self._table, self._known_of, self._spread_of = None, (None, None), []

    def _paced(self, replica: int, model: int, residual: float) -> None:
        """Take in by how much an answer was slower than predicted for the model, in logarithms."""
        most = log(_SURPRISE)
        seen = (1.0, min(max(residual, -most), most))
        for sums, of in ((self._pace, replica), (self._level, model)):
            sums[:, of] = self._forgetting * sums[:, of] + seen

    def _variance(self) -> Floats:
        """Return the variance of the log residual of ttft and of total (2, M)."""
        count, squares = self._residuals[:, 0], self._residuals[:, 1]
        variance: Floats = (_SPREAD_OUTCOMES * _SPREAD + squares) / (_SPREAD_OUTCOMES + count)
        return variance

    def _spread(self, i: int, kind: int, residual: float) -> None:
        """Take in a log residual."""
        squared = min(abs(residual), log(_SURPRISE)) ** 2
        self._residuals[kind, :, i] *= self._forgetting
        self._residuals[kind, :, i] += (1.0, squared)

    def _cover(self, i: int, kind: int, *, within: bool) -> None:
        """Take in whether a time was within its 90 % quantile."""
        moved = self._reach[kind, i] * np.exp(_COVERING * (_COVERED - within))
        self._reach[kind, i] = min(max(moved, _NARROWEST), _WIDEST)


class _Rates:
    """Non-negative linear models of a time, learned in relative error; K regressors."""

    def __init__(self, prior: Sequence[Sequence[float]], forgetting: float) -> None:
        mean = np.array(prior).reshape(len(prior), -1)
        # Regressors are divided by the prior, so that one precision fits every unit and model.
        self._scale = mean
        precision = np.full(mean.shape[1], 1.0 / 3.0**2)
        self.ridges = Ridges(np.ones_like(mean), precision, forgetting=forgetting)

    def rates(self) -> Floats:
        """Return the coefficients of every model (M, K)."""
        rates: Floats = np.maximum(self.ridges.coefficients, _LEAST) * self._scale
        return rates

    def learn(self, i: int, x: Floats, time_s: float, outcomes: float = 1.0) -> None:
        """Take in one time of model *i*, its error relative.

        Weights of 1/√time fit the median of log-normal noise; the rest of the scale is expected.
        """
        scaled = x * self._scale[i]
        rates = np.maximum(self.ridges.coefficients[i], _LEAST)
        expected = max(float(rates @ scaled), _SHORTEST_S)
        seen = min(max(time_s, expected / _SURPRISE), expected * _SURPRISE)
        relative = _NOISE * seen**0.5 * expected**1.5
        self.ridges.learn(i, scaled, seen, outcomes / relative, outcomes=outcomes)
