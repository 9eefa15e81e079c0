"""How many tokens a model's answer will have: the profile's guess, corrected per model online.

A ridge regression in log space, over `Features.length_regressors`, whose prior is the first of
them: the profile's own expectation. M = models.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, log
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import ZERO, constant, within
from router_svc.core.features import LEXICAL, LONGEST_TOKENS, Features
from router_svc.core.ridge import Floats, Ridges

Array: TypeAlias = NDArray[Any]

VERSION: Final = 3
_SHORTER: Final = (1, 2)
"""Knew the profile alone, and the text without its products."""
_OF_PROFILE: Final = [16.0, 2.0, 2.0, 2.0, 2.0, 2.0]
_OF_TEXT: Final = [0.3] * (2 * len(LEXICAL))
_PRIOR_PRECISION: Final = np.array([*_OF_PROFILE, *_OF_TEXT])
_PRIOR_MEAN: Final = np.eye(1, len(_PRIOR_PRECISION))[0]
_LOG_LONGEST: Final = constant(log(LONGEST_TOKENS))


class Length:
    """Expected answer length of every model. Mutable, one owner."""

    def __init__(self, models: Sequence[str], *, half_life_outcomes: float = 500.0) -> None:
        self.models = tuple(models)
        self._index = {name: i for i, name in enumerate(self.models)}
        mean = np.tile(_PRIOR_MEAN, (len(self.models), 1))
        forgetting = 0.5 ** (1.0 / half_life_outcomes)
        self._ridges = Ridges(mean, _PRIOR_PRECISION, forgetting=forgetting)

    def predict(self, features: Features) -> Floats:
        """Return expected output tokens (M,), at least 1."""
        log_tokens = self._ridges.mean(features.length_regressors)
        expected: Floats = np.exp(within(log_tokens, ZERO, _LOG_LONGEST))
        return expected

    def learn(self, model: str, features: Features, tokens: int) -> None:
        """Take in the length of a finished answer.

        Raises KeyError for an unknown model, ValueError for a negative length.
        """
        if tokens < 0 or not isfinite(tokens):
            raise ValueError(f"tokens: {tokens} is not a count")
        target = float(np.log(max(tokens, 1)))
        self._ridges.learn(self._index[model], features.length_regressors, target)

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        gram, moment = self._ridges.statistics()
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "gram": gram,
            "moment": moment,
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models keep their prior.

        Of what knew less of the text, nothing: a few dozen answers say more. Raises ValueError if
        it was written by yet another version.
        """
        if (version := int(arrays["version"])) not in (*_SHORTER, VERSION):
            raise ValueError(f"length state of version {version}, not {VERSION}")
        if version in _SHORTER:
            return
        for j, name in enumerate(arrays["models"].tolist()):
            if (i := self._index.get(name)) is not None:
                self._ridges.restore(i, arrays["gram"][j], arrays["moment"][j])
