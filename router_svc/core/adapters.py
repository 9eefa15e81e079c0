"""Embeddings tailored to models: closer together then means similar success on that model.

A model's adapter is A = I + bbᵀ, b the direction in which its scores rise fastest by ridge
regression (Hoerl and Kennard, 1970), and each vector has length 1 again. It is learned from the
outcomes that the router remembers, and stays the identity until nearest neighbours predict the
model's scores better with it, on outcomes that it was not learned from. N = outcomes or vectors,
E = dimensions of an embedding, M = models.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core import neighbours
from router_svc.core.features import EMBEDDING_SIZE, Features, Floats
from router_svc.core.kernel import Halved
from router_svc.core.memory import Seen

Array: TypeAlias = NDArray[Any]

VERSION: Final = 1
_LEAST_OUTCOMES: Final = 200
"""Of a model, before an adapter of it is thought about."""
_LEAST_WEIGHT: Final = 1e-3
_PRECISION: Final = 10.0
"""Of the prior of what is regressed, in outcomes along one direction."""
_SHARPNESS: Final = 5.0
_FOLDS: Final = 5
_SURE: Final = 1.64
"""Standard errors by which the error has to fall: 5 % of useless adapters would pass."""
_TINY: Final = 1e-12


class Adapters:
    """What was learned for each model. Mutable, one owner."""

    def __init__(self, models: Sequence[str]) -> None:
        """Start with the identity."""
        self.models = tuple(models)
        self.encoder = ""
        """Who made the vectors that adapters are learned from."""
        self.outcomes = 0
        """So many remembered outcomes, the newest, are that encoder's."""
        self._directions = np.zeros((len(self.models), EMBEDDING_SIZE), dtype=np.float32)

    def noted(self, features: Features) -> None:
        """Take note of who made the vector of an outcome; another encoder begins anew."""
        encoder = features.source.partition("+")[0]
        if encoder != self.encoder and features.embedding.any():
            self.encoder, self.outcomes = encoder, 0
            self._directions[:] = 0.0
        self.outcomes += 1

    def adopt(self, directions: Halved, encoder: str) -> None:
        """Adapt by *directions* (M, E) from now on, if they are still of the same *encoder*."""
        if encoder == self.encoder:
            self._directions = directions

    def adapted(self) -> tuple[str, ...]:
        """Name the models whose adapter is not the identity."""
        some = np.count_nonzero(self._directions, axis=1).tolist()
        return tuple(name for name, is_some in zip(self.models, some, strict=True) if is_some)

    def adapt(self, vectors: Halved, model: str, encoder: str) -> tuple[Halved, bool]:
        """Pass *vectors* (N, E) of *encoder* through *model*'s adapter; say if there is one."""
        if encoder != self.encoder or model not in self.adapted():
            return vectors, False
        return stretched(vectors, self._directions[self.models.index(model)]), True

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "encoder": np.array(self.encoder, dtype=np.str_),
            "outcomes": np.array(self.outcomes),
            "directions": self._directions.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models start with the identity.

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) != VERSION or arrays["directions"].shape[1] != EMBEDDING_SIZE:
            raise ValueError(f"adapters of version {arrays['version']}, not {VERSION}")
        self.encoder, self.outcomes = str(arrays["encoder"]), int(arrays["outcomes"])
        for name, direction in zip(arrays["models"].tolist(), arrays["directions"], strict=True):
            if name in self.models:
                self._directions[self.models.index(name)] = direction


def stretched(vectors: Halved, direction: Halved) -> Halved:
    """Stretch *vectors* (N, E) to twice their length along *direction* (E,), then to length 1."""
    wide = vectors + np.outer(vectors @ direction, direction)
    unit: Halved = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _TINY)
    return unit


def learn(seen: Seen, newest: int, count: int) -> Halved:
    """Return the direction (M, E) of each of *count* models from the *newest* of what was seen.

    All zeros, which is the identity, for a model that is not measured to gain by more.
    """
    directions = np.zeros((count, EMBEDDING_SIZE), dtype=np.float32)
    if newest <= 0:
        return directions
    topics, models = seen.topics[-newest:], seen.models[-newest:]
    targets, weights = seen.targets[-newest:], seen.weights[-newest:]
    some = (weights > _LEAST_WEIGHT) & topics.any(axis=1)
    for model, direction in enumerate(directions):
        mine = np.flatnonzero(some & (models == model))
        if len(mine) >= _LEAST_OUTCOMES:
            vectors = topics[mine].astype(np.float32)
            if _helps(vectors, targets[mine], weights[mine]):
                direction[:] = _rising(vectors, targets[mine], weights[mine])
    return directions


def _helps(vectors: Halved, targets: Floats, weights: Floats) -> bool:
    """Whether neighbours surely predict *targets* (N,) better by adapted *vectors* (N, E)."""
    fold, better = _dealt(vectors), np.zeros(len(targets))
    for number in range(_FOLDS):
        held = fold == number
        if held.all() or not held.any():
            return False
        learned, asked = vectors[~held], vectors[held]
        direction = _rising(learned, targets[~held], weights[~held])
        plain = _near(learned, targets[~held], asked)
        adapted = _near(stretched(learned, direction), targets[~held], stretched(asked, direction))
        better[held] = (plain - targets[held]) ** 2 - (adapted - targets[held]) ** 2
    gain = float(np.average(better, weights=weights))
    spread = float(np.sqrt(np.average((better - gain) ** 2, weights=weights)))
    independent = weights.sum() ** 2 / (weights**2).sum()
    return gain > _SURE * spread / float(np.sqrt(independent))


def _near(learned: Halved, targets: Floats, asked: Halved) -> Floats:
    found = neighbours.remember(learned, targets[:, None], sharpness=_SHARPNESS)
    return found.predict(asked)[:, 0]


def _rising(vectors: Halved, targets: Floats, weights: Floats) -> Halved:
    """Return the direction (E,) of length 1 in which *targets* (N,) rise; zeros where in none."""
    share = weights / weights.sum()
    x = vectors.astype(np.float64) - share @ vectors
    weighed = x * weights[:, None]
    prior = _PRECISION * np.eye(x.shape[1])
    slope = np.linalg.solve(x.T @ weighed + prior, weighed.T @ (targets - share @ targets))
    unit: Halved = (slope / max(float(np.linalg.norm(slope)), _TINY)).astype(np.float32)
    return unit


def _dealt(vectors: Halved) -> NDArray[np.intp]:
    """Deal *vectors* (N, E) to folds (N,), equal ones to the same."""
    _, group = np.unique(vectors, axis=0, return_inverse=True)
    order = np.random.default_rng(len(vectors)).permutation(int(group.max()) + 1)
    fold: NDArray[np.intp] = order[group] % _FOLDS
    return fold
