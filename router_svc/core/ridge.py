"""Recursive Bayesian ridge regression, several targets at once, with forgetting.

The one estimator under quality, latency and length. D = regressors, M = independent targets.
After n outcomes of a target, with forgetting g per outcome, the coefficients are exactly

    argmin_w  Σᵢ g^(n-i) vᵢ (yᵢ - w·xᵢ)² + (w - w₀)ᵀ S (w - w₀)

with weights vᵢ, prior mean w₀ and prior precision S. The prior is never forgotten, so
directions that no recent outcome excites return to it instead of winding up.

That costs an inverse, O(D³), per outcome. Where the past may age in steps of a few outcomes, each
g^(n-i) as it was at the last step, those between two steps are exact updates of rank one (Sherman
and Morrison, 1950), O(D²).
"""

from math import sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


class Ridges:
    """M ridge regressions over the same D regressors. Mutable, one owner."""

    def __init__(
        self, mean: Floats, precision: Floats, *, forgetting: float = 1.0, apart: float = 0.0
    ) -> None:
        """Start from the prior: *mean* (M, D), *precision* (D,); *forgetting* in (0, 1].

        The past of a target ages once so many outcomes *apart*; 0: with each.
        """
        self._prior_mean = mean.astype(np.float64, copy=True)
        self._prior_precision = np.diag(precision).astype(np.float64)
        self._forgetting = forgetting
        self.coefficients = self._prior_mean.copy()
        """Posterior mean (M, D)."""
        self.covariance = np.repeat(np.diag(1.0 / precision)[None], len(mean), axis=0)
        """Posterior covariance (M, D, D), in units of the noise variance."""
        self._rows = self.covariance.reshape(-1, len(precision))
        """(M·D, D) The same numbers: one matrix times a vector is faster than several."""
        self._apart, self._age = apart, [0.0] * len(mean)
        """Outcomes of each target by which its past has yet to age."""
        self._held: list[list[tuple[Floats, float]]] = [[] for _ in mean]
        """Outcomes of each target, regressors and weight, that its gram does not have yet."""
        self._gram = np.zeros_like(self.covariance)
        self._moment = np.zeros_like(self._prior_mean)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean (M,) and leverage xᵀΣx (M,) at *x* (D,)."""
        return self.coefficients.dot(x), self._rows.dot(x).reshape(-1, len(x)).dot(x)

    def mean(self, x: Floats) -> Floats:
        """Return the mean alone (M,) at *x* (D,)."""
        mean: Floats = self.coefficients.dot(x)
        return mean

    def predict_one(self, target: int, x: Floats) -> tuple[float, float]:
        """Return mean and leverage of one *target* at *x* (D,)."""
        return float(self.coefficients[target] @ x), float(x @ self.covariance[target] @ x)

    def learn(
        self, target: int, x: Floats, y: float, weight: float = 1.0, *, outcomes: float = 1.0
    ) -> None:
        """Take in one *y* of *target* at *x* (D,), which ages the past by *outcomes*."""
        self._age[target] += outcomes
        due = self._age[target] >= self._apart
        if due:
            self._forget(target)
        self._held[target].append((x, weight))
        self._moment[target] += weight * (y - self._prior_mean[target] @ x) * x
        if due:
            self._solve(target)
            return
        covariance = self.covariance[target]
        known = covariance @ x
        known *= sqrt(weight / (1.0 + weight * float(x @ known)))
        covariance -= np.outer(known, known)
        self._fit(target)

    def learn_expected(self, target: int, x: Floats, weight: float) -> None:
        """Take in outcomes of *target* at *x* (N, D) that came as the prior mean expected."""
        self._gram[target] += weight * (x.T @ x)
        self._solve(target)

    def statistics(self) -> tuple[Floats, Floats]:
        """Return what was learned, for saving: gram (M, D, D) and moment (M, D), aged till now."""
        for target, age in enumerate(self._age):
            if age > 0.0:
                self._forget(target)
                self._solve(target)
        return self._gram.copy(), self._moment.copy()

    def restore(self, target: int, gram: Floats, moment: Floats) -> None:
        """Put back what `statistics` returned for one target: (D, D) and (D,)."""
        self._held[target].clear()
        self._gram[target], self._moment[target], self._age[target] = gram, moment, 0.0
        self._solve(target)

    def _gather(self, target: int) -> None:
        """Bring the gram of *target* up to date: at once takes less than one by one."""
        held = self._held[target]
        if held:
            x = np.array([each for each, _ in held])
            weights = np.array([weight for _, weight in held])
            self._gram[target] += (x.T * weights) @ x
            held.clear()

    def _forget(self, target: int) -> None:
        """Let the past of *target* age by what it has yet to."""
        self._gather(target)
        kept = self._forgetting ** self._age[target]
        self._gram[target] *= kept
        self._moment[target] *= kept
        self._age[target] = 0.0

    def _solve(self, target: int) -> None:
        self._gather(target)
        covariance = np.linalg.inv(self._gram[target] + self._prior_precision)
        self.covariance[target] = 0.5 * (covariance + covariance.T)
        self._fit(target)

    def _fit(self, target: int) -> None:
        shift = self.covariance[target] @ self._moment[target]
        self.coefficients[target] = self._prior_mean[target] + shift
