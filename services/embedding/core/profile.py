"""What kind of work a text is, how hard, and how long its answer: a small trained head.

F features in all: an embedding of D dimensions, then the lexical features. The head is
multinomial logistic regression for the kind, logistic regression for the difficulty, and ridge
regression for the logarithm of the answer's tokens. `tools/train_profile.py` fits it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.embedding.core.language import language
from services.embedding.core.lexical import lexical

Floats = NDArray[np.float32]

TASKS: Final = ("code", "reasoning", "general", "embedding")
"""Kinds of task, in the order of the head's columns."""
MAX_OUTPUT_TOKENS: Final = 4096.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a text looks like before it is answered."""

    tasks: tuple[float, ...]
    """Probability of each of TASKS; they sum to 1."""
    difficulty_ratio: float
    output_tokens: float
    """Expected length of the answer."""
    language: str
    """BCP 47, empty where not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The weights of one set of features."""

    mean: Floats
    """Of each feature in training, (F,)."""
    scale: Floats
    """What one unit of each feature is divided by, (F,)."""
    weights: Floats
    """(F, 6): the TASKS' logits, the difficulty's logit, the logarithm of the answer's tokens."""
    bias: Floats
    """(6,)."""


def features(texts: Sequence[str], vectors: Floats) -> Floats:
    """Return the features (B, F) of *texts*, whose embeddings are *vectors* (B, D)."""
    return np.concatenate([vectors, np.stack([lexical(text) for text in texts])], axis=1)


def profiles(texts: Sequence[str], vectors: Floats, head: Head) -> list[Profile]:
    """Profile *texts*, whose embeddings are *vectors* (B, D)."""
    out = ((features(texts, vectors) - head.mean) / head.scale) @ head.weights + head.bias
    shares, difficulty, log_tokens = softmax(out[:, :4]), sigmoid(out[:, 4]), out[:, 5]
    tokens = np.clip(np.expm1(np.clip(log_tokens, 0, 20)), 1.0, MAX_OUTPUT_TOKENS)
    return [
        Profile(
            tasks=tuple(share.tolist()),
            difficulty_ratio=float(difficulty[i]),
            output_tokens=float(tokens[i]),
            language=language(text),
        )
        for i, (text, share) in enumerate(zip(texts, shares, strict=True))
    ]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return probabilities along the last axis, in double precision so that they sum to 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1 / (1 + e^-x) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))


def dump(head: Head) -> bytes:
    """Encode *head* as an .npz archive."""
    file = BytesIO()
    np.savez(file, allow_pickle=False, **{f.name: getattr(head, f.name) for f in fields(head)})
    return file.getvalue()


def load(data: bytes) -> Head:
    """Decode what `dump` wrote. Raises ValueError or KeyError for anything else."""
    with np.load(BytesIO(data), allow_pickle=False) as archive:
        return Head(**{f.name: archive[f.name] for f in fields(Head)})
