"""The committed profile heads: one for all-MiniLM-L6-v2, one for any other encoder.

A head knows its encoder's dimensions by heart; another encoder's vectors mean nothing to it. Such
an encoder gets the head that was trained on the lexical features alone.
"""

from dataclasses import replace
from importlib import resources

import numpy as np

from services.embedding.checkpoint import MINILM_SHA256
from services.embedding.core.profile import Head, load

FULL = "profile-minilm"
LEXICAL = "profile-lexical"


def head_for(encoder_sha256: str, dimensions: int) -> tuple[str, Head]:
    """Return the head for an encoder of *dimensions*, and its name."""
    if encoder_sha256 == MINILM_SHA256:
        return FULL, _read(FULL)
    return LEXICAL, _widened(_read(LEXICAL), dimensions)


def _read(name: str) -> Head:
    return load((resources.files("services.embedding") / "data" / f"{name}.npz").read_bytes())


def _widened(head: Head, dimensions: int) -> Head:
    """Put *dimensions* features without weight before those of *head*."""
    zeros = np.zeros(dimensions, np.float32)
    return replace(
        head,
        mean=np.concatenate([zeros, head.mean]),
        scale=np.concatenate([zeros + 1, head.scale]),
        weights=np.concatenate([np.zeros((dimensions, 6), np.float32), head.weights]),
    )
