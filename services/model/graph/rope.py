"""Angles of rotary position embeddings (Su et al. 2021), and how they are stretched.

Letters: S positions, D head dimension.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How positions beyond those of the first training are squeezed into them."""

    kind: str = "default"
    factor: float = 1.0
    original_tokens: int = 0
    low_frequency_factor: float = 1.0
    """llama3: wavelengths above original_tokens over this are stretched in full."""
    high_frequency_factor: float = 4.0
    """llama3: wavelengths below original_tokens over this stay."""
    beta_fast: float = 32.0
    """yarn: dimensions that turn oftener than this in the original context stay."""
    beta_slow: float = 1.0
    """yarn: dimensions that turn less often than this are stretched in full."""
    attention_factor: float = 1.0
    """yarn: what cosines and sines are multiplied by."""
    truncate: bool = True
    """yarn: the bounds between dimensions are whole numbers."""


PLAIN = Scaling()


def scaling(rope: Mapping[str, Any], context_tokens: int) -> Scaling:
    """Read `rope_scaling` or `rope_parameters`. Raises KeyError, TypeError or ValueError."""
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind == "default":
        return PLAIN
    if kind not in KINDS:
        raise ValueError(f"rope scaling {kind!r} is not supported; supported: {', '.join(KINDS)}")
    factor = float(rope["factor"])
    if not 1 <= factor <= 1e4:  # noqa: PLR2004 - longer than anything that was trained
        raise ValueError(f"rope scaling: factor = {factor}")
    original = rope.get("original_max_position_embeddings") or context_tokens
    found = Scaling(
        kind=kind,
        factor=factor,
        original_tokens=int(original),
        low_frequency_factor=float(rope.get("low_freq_factor", 1.0)),
        high_frequency_factor=float(rope.get("high_freq_factor", 4.0)),
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        attention_factor=_attention_factor(rope, factor) if kind == "yarn" else 1.0,
        truncate=bool(rope.get("truncate", True)),
    )
    betas = (found.low_frequency_factor, found.beta_slow, float(found.original_tokens))
    if not all(0 < b < math.inf for b in betas) or not (
        found.low_frequency_factor < found.high_frequency_factor < math.inf
        and found.beta_slow < found.beta_fast < math.inf
        and 0 < found.attention_factor < math.inf
    ):
        raise ValueError(f"rope scaling: {found}")
    return found


def tables(
    *, theta: float, head_dim: int, tokens: int, scaled: Scaling
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cosines and sines (S, D/2) of *tokens* positions."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    match scaled.kind:
        case "linear":
            frequencies = frequencies / np.float32(scaled.factor)
        case "llama3":
            frequencies = _llama3(frequencies, scaled)
        case "yarn":
            frequencies = _yarn(frequencies, scaled, theta)
    angles = np.outer(np.arange(tokens, dtype=np.float32), frequencies.astype(np.float32))
    stretch = np.float32(scaled.attention_factor)
    return np.cos(angles) * stretch, np.sin(angles) * stretch


def _llama3(frequencies: NDArray[np.float32], scaled: Scaling) -> NDArray[np.float32]:
    """Stretch long wavelengths, keep short ones, blend between (Llama 3.1)."""
    turns = scaled.original_tokens * frequencies / np.float32(2 * math.pi)
    low, high = scaled.low_frequency_factor, scaled.high_frequency_factor
    kept = np.clip((turns - low) / (high - low), 0, 1)
    out: NDArray[np.float32] = frequencies * (kept + (1 - kept) / scaled.factor)
    return out


def _yarn(frequencies: NDArray[np.float32], scaled: Scaling, theta: float) -> NDArray[np.float32]:
    """Stretch by how often a dimension turns in the original context (Peng et al. 2023)."""
    width = 2 * len(frequencies)

    def dimension(turns: float) -> float:
        length = scaled.original_tokens / (turns * 2 * math.pi)
        return width * math.log(length) / (2 * math.log(theta))

    low, high = dimension(scaled.beta_fast), dimension(scaled.beta_slow)
    if scaled.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (np.arange(len(frequencies)) - low) / max(high - low, 0.001)
    stretched = np.clip(ramp, 0, 1)
    out: NDArray[np.float32] = frequencies * (1 - stretched + stretched / scaled.factor)
    return out


def _attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    def scale(times: float) -> float:
        return 0.1 * times * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    every = rope.get("mscale_all_dim")
    return (
        scale(float(rope["mscale"])) / scale(float(every))
        if rope.get("mscale") and every
        else scale(1)
    )
