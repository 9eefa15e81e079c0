"""How likely an answer is right, given how sure its model sounded: what a cascade accepts by.

Per model, P(correct) = sigmoid(w · [1, logit(q), z]), q the predicted quality and z the answer's
standardised mean token log-probability. The weights follow outcomes by recursive Laplace updates
(one Newton step per outcome, as in Chapelle and Li, 2011), from a prior that trusts q and gives
log-probability a moderate say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Array: TypeAlias = NDArray[Any]

VERSION: Final = 1
_PRIOR_WEIGHTS: Final = (0.0, 1.0, 1.0)
_PRIOR_PRECISION: Final = (8.0, 8.0, 4.0)
_KEPT: Final = 0.5 ** (1.0 / 1000.0)
_LOGPROB_CENTRE, _LOGPROB_SCALE = -0.15, 0.2
_CAPACITY: Final = 256
"""Outcomes remembered per model, to know how log-probabilities spread."""
_QUANTILES: Final = np.array([-1.8, -1.1, -0.6, -0.2, 0.2, 0.6, 1.1, 1.8])
"""A prior spread of z: about a standard normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What a threshold makes of a model's answers: p·accepted + (1-p)·rejected = quality."""

    p_accept: float
    quality_if_accepted: float
    quality_if_rejected: float


class Confidence:
    """Calibrated confidence per model. Mutable, one owner."""

    def __init__(self, models: Sequence[str]) -> None:
        """Start every model at the prior."""
        self.models = tuple(models)
        self._index = {name: i for i, name in enumerate(self.models)}
        count = len(self.models)
        self._weights = np.tile(np.array(_PRIOR_WEIGHTS), (count, 1))
        self._precision = np.tile(np.diag(_PRIOR_PRECISION), (count, 1, 1))
        self._logprobs = np.zeros((count, _CAPACITY))
        self._seen = np.zeros(count, dtype=np.int64)

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
        self._precision[i] += (1.0 - _KEPT) * (np.diag(_PRIOR_PRECISION) - self._precision[i])
        self._precision[i] += p * (1.0 - p) * np.outer(x, x)
        self._weights[i] += np.linalg.solve(self._precision[i], (score - p) * x)
        self._logprobs[i, self._seen[i] % _CAPACITY] = z
        self._seen[i] += 1

    def accept_gain(self, model: str, quality: float, threshold: float) -> Split:
        """Return what accepting answers of at least *threshold* confidence is expected to do.

        From the log-probabilities remembered of *model*, and a prior spread of them. Raises
        KeyError for an unknown model.
        """
        quality = min(max(0.0, quality), 1.0)
        i = self._index[model]
        z = np.concatenate([_QUANTILES, self._logprobs[i, : min(self._seen[i], _CAPACITY)]])
        w = self._weights[i]
        sure = _sigmoid(w[0] + w[1] * _logit(quality) + w[2] * z)
        accepted = sure >= threshold
        p = float(accepted.mean())
        if p in (0.0, 1.0):
            return Split(p_accept=p, quality_if_accepted=quality, quality_if_rejected=quality)
        gain = max(float(sure[accepted].mean() - sure.mean()), 0.0)
        good = min(quality + gain, 1.0, quality / p)
        bad = (quality - p * good) / (1.0 - p)
        return Split(p_accept=p, quality_if_accepted=good, quality_if_rejected=bad)

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

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) != VERSION:
            raise ValueError(f"confidence state of version {arrays['version']}, not {VERSION}")
        for j, name in enumerate(arrays["models"].tolist()):
            if (i := self._index.get(name)) is not None:
                self._weights[i], self._precision[i] = arrays["weights"][j], arrays["precision"][j]
                self._logprobs[i], self._seen[i] = arrays["logprobs"][j], arrays["seen"][j]


def _standardised(mean_logprob: float) -> float:
    """Bring a mean log-probability (at most 0) to about -2 to 1; NaN counts as unsure."""
    z = (mean_logprob - _LOGPROB_CENTRE) / _LOGPROB_SCALE
    return min(max(-4.0, z), 4.0)


def _regressors(z: float, quality: float) -> Floats:
    return np.array([1.0, _logit(quality), z])


def _logit(p: float) -> float:
    p = min(max(0.01, p), 0.99)
    return log(p / (1.0 - p))


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))
