"""How likely an answer is right, given how sure its model sounded: what a cascade accepts by.

Per model, P(correct) = sigmoid(w · [1, logit(q), z]), q the predicted quality and z the answer's
standardised mean token log-probability, on a logarithmic scale: whether one token in ten or in a
hundred was a surprise tells more than whether every second or third was. The weights follow
outcomes by recursive Laplace updates (one Newton step per outcome, as in Chapelle and Li, 2011),
from a prior that trusts q and gives log-probability a moderate say.
"""

from collections.abc import Mapping, Sequence
from math import exp, inf, isnan, log
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import Floats
from router_svc.core.spread import spread

Array: TypeAlias = NDArray[Any]

VERSION: Final = 2
_PRIOR_WEIGHTS: Final = (0.0, 1.0, 1.0)
_PRIOR_PRECISION: Final = np.diag((8.0, 8.0, 4.0))
_KEPT: Final = 0.5 ** (1.0 / 1000.0)
_SURPRISE_CENTRE, _SURPRISE_SCALE = log(0.1), 1.5
"""Of the logarithm of minus a mean log-probability."""
_LEAST_SURPRISE: Final = 1e-3
UNSURE_LOGPROB: Final = -exp(_SURPRISE_CENTRE + 1.28 * _SURPRISE_SCALE)
"""Mean log-probability of an answer among the tenth that is least sure."""
_CAPACITY: Final = 256
"""Outcomes remembered per model, to know how log-probabilities spread."""
_QUANTILES: Final = np.array(
    [
        *(-1.86, -1.32, -1.01, -0.78, -0.58, -0.4, -0.24, -0.08),
        *(0.08, 0.24, 0.4, 0.58, 0.78, 1.01, 1.32, 1.86),
    ]
)
"""A prior spread of z: sixteen equally likely values of a standard normal."""
_LEVELS: Final = (np.arange(len(_QUANTILES)) + 0.5) / len(_QUANTILES)


class Confidence:
    """Calibrated confidence per model. Mutable, one owner."""

    def __init__(self, models: Sequence[str]) -> None:
        """Start every model at the prior."""
        self.models = tuple(models)
        self._index = {name: i for i, name in enumerate(self.models)}
        count = len(self.models)
        self._weights = np.tile(np.array(_PRIOR_WEIGHTS), (count, 1))
        self._precision = np.tile(_PRIOR_PRECISION, (count, 1, 1))
        self._logprobs = np.zeros((count, _CAPACITY))
        self._seen = np.zeros(count, dtype=np.int64)
        self._z = np.tile(_QUANTILES, (count, 1))
        """(M, Z) How the log-probabilities of each model spread."""
        self._odds = [self._odds_of(i) for i in range(count)]
        """Of each model: level, say of its quality, and (Z,) what log-probabilities do to the odds
        against it."""

    def predict(self, model: str, mean_logprob: float, quality: float) -> float:
        """Return P(correct) in (0, 1). Raises KeyError for an unknown model."""
        x = _regressors(_standardised(mean_logprob), quality)
        return float(_sigmoid(self._weights[self._index[model]] @ x))

    def learn(self, model: str, mean_logprob: float, quality: float, score: float) -> None:
        """Take in the *score* of an answer.

        Raises KeyError for an unknown model, ValueError for a score outside [0, 1].
        """
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"score: {score} is not in [0, 1]")
        i, z = self._index[model], _standardised(mean_logprob)
        x = _regressors(z, quality)
        p = _sigmoid(self._weights[i] @ x)
        # Old outcomes lose their hold, so that a model that changes is followed; the prior's stays.
        self._precision[i] += (1.0 - _KEPT) * (_PRIOR_PRECISION - self._precision[i])
        self._precision[i] += p * (1.0 - p) * np.outer(x, x)
        self._weights[i] += np.linalg.solve(self._precision[i], (score - p) * x)
        self._logprobs[i, self._seen[i] % _CAPACITY] = z
        self._seen[i] += 1
        self._z[i] = self._spread_of(i)
        self._odds[i] = self._odds_of(i)

    def spread(self, models: Sequence[int], quality: Sequence[float]) -> list[list[float]]:
        """Return the confidences that answers of *models* (N,) will have; (N, Z), ascending.

        *models* are numbers, and *quality* (N,) is predicted. Confidences follow from the
        log-probabilities remembered of each model, and from a prior spread of them; their mean is
        its quality.
        """
        return [spread(q, *self._odds[i]) for i, q in zip(models, quality, strict=True)]

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "weights": self._weights.copy(),
            "precision": self._precision.copy(),
            "logprobs": self._logprobs.copy(),
            "seen": self._seen.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models keep their prior.

        Raises ValueError if it was written by another version; version 1 had another scale, and
        is learned anew.
        """
        if int(arrays["version"]) == 1:
            return
        if int(arrays["version"]) != VERSION:
            raise ValueError(f"confidence state of version {arrays['version']}, not {VERSION}")
        for j, name in enumerate(arrays["models"].tolist()):
            if (i := self._index.get(name)) is not None:
                self._weights[i], self._precision[i] = arrays["weights"][j], arrays["precision"][j]
                self._logprobs[i], self._seen[i] = arrays["logprobs"][j], arrays["seen"][j]
                self._z[i] = self._spread_of(i)
                self._odds[i] = self._odds_of(i)

    def _odds_of(self, i: int) -> tuple[float, float, list[float]]:
        """Return what `spread` needs to know of model *i*."""
        level, trust, say = self._weights[i].tolist()
        return level, trust, np.exp(-max(say, 0.0) * self._z[i]).tolist()

    def _spread_of(self, i: int) -> Floats:
        """Return the quantiles of what is remembered of model *i* and of the prior together."""
        known = self._logprobs[i, : min(self._seen[i], _CAPACITY)]
        ordered = np.sort(np.concatenate([_QUANTILES, known]))
        # `np.quantile` of the same takes ten times as long.
        places = _LEVELS * (len(ordered) - 1)
        return np.asarray(np.interp(places, np.arange(len(ordered)), ordered))


def _standardised(mean_logprob: float) -> float:
    """Bring a mean log-probability (at most 0) to about -2 to 3; NaN counts as unsure."""
    surprise = inf if isnan(mean_logprob) else max(-mean_logprob, 0.0)
    z = (_SURPRISE_CENTRE - log(_LEAST_SURPRISE + surprise)) / _SURPRISE_SCALE
    return min(max(-4.0, z), 4.0)


def _regressors(z: float, quality: float) -> Floats:
    return np.array([1.0, _logit(quality), z])


def _logit(p: float) -> float:
    p = min(max(0.01, p), 0.99)
    return log(p / (1.0 - p))


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))
