"""When a replica would answer: quantiles of time to first token and of the whole answer.

An analytic model per served model, linear in what the load means for the device:

    ttft = overhead + prefill·(prompt tokens ahead and own) + step·(decode steps that interleave)
           + wait for a slot
    time per output token = step(running) = step₀ + step₁·running

Its coefficients start at priors and follow observations by recursive ridge regression in
relative error. Residuals are log-normal with an online variance; uncertainty also grows with
the age of the report. N = replicas, M = models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.ridge import Floats, Ridges

Array: TypeAlias = NDArray[Any]
Ints: TypeAlias = NDArray[np.int64]

VERSION: Final = 1
_Z90: Final = 1.2816


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPrior:
    """What is assumed of a model on its hardware before the first answer."""

    overhead_s: float = 0.005
    prefill_s_per_token: float = 0.0005
    step_s: float = 0.004
    step_s_per_running: float = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoads:
    """Load of N replicas as known now, own requests in flight included; every array is (N,)."""

    model: Ints
    """Index into `Latency.models`."""
    running: Floats
    """Requests in the running batch."""
    waiting: Floats
    """Requests not running yet."""
    waiting_prompt_tokens: Floats
    """Prompt tokens still to feed."""
    remaining_tokens: Floats
    """Mean output tokens still expected per running request."""
    max_running: Floats
    age_s: Floats
    """Age of the report behind the figures."""

    def row(self, i: int) -> "ReplicaLoads":
        """Return replica *i* alone, to remember with a dispatch and `learn` from."""
        return ReplicaLoads(**{name: getattr(self, name)[i : i + 1] for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyQuantiles:
    """Predicted times in seconds; every array is (N,)."""

    ttft_p50_s: Floats
    ttft_p90_s: Floats
    total_p50_s: Floats
    total_p90_s: Floats
    tpot_s: Floats
    """Expected time per output token after the first."""
    total_sigma: Floats
    """Standard deviation of the logarithm of the total."""

    def p_finish(self, deadline_s: float) -> Floats:
        """Return P(total ≤ deadline) (N,)."""
        if deadline_s <= 0.0:
            return np.zeros_like(self.total_p50_s)
        return _normal_cdf(np.log(deadline_s / self.total_p50_s) / self.total_sigma)


class Latency:
    """Latency model of every model. Mutable, one owner."""

    def __init__(
        self,
        models: Sequence[str],
        priors: Mapping[str, LatencyPrior] | None = None,
        *,
        half_life_outcomes: float = 200.0,
    ) -> None:
        self.models = tuple(models)
        self._index = {name: i for i, name in enumerate(self.models)}
        given = priors or {}
        chosen = [given.get(name, LatencyPrior()) for name in self.models]
        forgetting = 0.5 ** (1.0 / half_life_outcomes)
        self._forgetting = forgetting
        first = np.array([[p.overhead_s, p.prefill_s_per_token, 1.0, 1.0] for p in chosen])
        step = np.array([[p.step_s, p.step_s_per_running] for p in chosen])
        self._first = Ridges(first, _precision(first[0]), forgetting=forgetting)
        self._step = Ridges(step, _precision(step[0]), forgetting=forgetting)
        self._spread = np.full((2, len(self.models)), 0.25)
        """Variance of the log residual of ttft and of total."""

    def predict(
        self, loads: ReplicaLoads, prompt_tokens: int, output_tokens: Floats
    ) -> LatencyQuantiles:
        """Predict for a request of *prompt_tokens* and *output_tokens* (N,) or () on N replicas."""
        first, step = self._expected(loads, prompt_tokens)
        total = first + step * np.maximum(output_tokens - 1.0, 0.0)
        stale = (loads.age_s / 2.0) ** 2 * 0.1
        sigma = np.sqrt(self._spread[:, loads.model] + stale)
        wide = np.exp(_Z90 * sigma)
        return LatencyQuantiles(
            ttft_p50_s=first,
            ttft_p90_s=first * wide[0],
            total_p50_s=total,
            total_p90_s=total * wide[1],
            tpot_s=step,
            total_sigma=sigma[1],
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
    ) -> None:
        """Take in one answer, with its replica's *load* (one row) when it was sent there."""

    def learn_step(self, model: str, running: float, step_s: float) -> None:
        """Take in a decode step's mean time at *running* requests, as a replica reports it."""

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        return {"version": np.array(VERSION), "models": np.array(self.models)}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models keep their prior.

        Raises ValueError if it was written by another version.
        """

    def _expected(self, loads: ReplicaLoads, prompt_tokens: int) -> tuple[Floats, Floats]:
        running = np.minimum(loads.running + 1.0, loads.max_running)
        a = self._step.coefficients[loads.model]
        step = np.maximum(a[:, 0] + a[:, 1] * running, 1e-6)
        excess = np.maximum(loads.waiting + loads.running + 1.0 - loads.max_running, 0.0)
        rounds = excess / np.maximum(loads.max_running, 1.0)
        x = np.stack(
            [
                np.ones_like(step),
                loads.waiting_prompt_tokens + prompt_tokens,
                step * (loads.running > 0),
                rounds * loads.remaining_tokens * step,
            ]
        )
        first = (self._first.coefficients[loads.model].T * x).sum(axis=0)
        return np.maximum(first, 1e-6), step


def _precision(mean: Floats) -> Floats:
    return 1.0 / np.maximum(0.5 * mean, 1e-9) ** 2


def _normal_cdf(x: Floats) -> Floats:
    """Return Φ(x) within 2e-4 (logistic approximation of Bowling et al., 2009)."""
    p: Floats = 1.0 / (1.0 + np.exp(-np.clip(x * (1.5976 + 0.07056 * x * x), -60.0, 60.0)))
    return p
