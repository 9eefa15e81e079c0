"""Choose tokens from logits, vectorised over the batch.

Every operation works on one row at a time, so that a row's choice depends on nothing but its own
logits, settings and random numbers. In order: repetition penalty (Keskar et al. 2019), presence and
frequency penalties, what a grammar allows, temperature, top-k, top-p of what is left (Holtzman et
al. 2020), min-p.

Letters: B sequences, V vocabulary.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.model.engine.types import Sequence

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Choices:
    """A token (B,) for each row, and its log-probability (B,) by the raw logits."""

    tokens: Ids
    logprobs: Floats
    top: list[tuple[tuple[int, float], ...]]


def choose(logits: Floats, sequences: Seq[Sequence]) -> Choices:
    """Choose the next token of each of *sequences* from *logits* (B, V), and count it nowhere."""
    # The tiniest temperatures and penalties overflow: the choice is extreme then, as was asked.
    with np.errstate(over="ignore", invalid="ignore"):
        tokens = _tokens(logits, sequences)
    normaliser = log_sum_exp(logits)
    logprobs = logits[np.arange(len(tokens)), tokens] - normaliser
    top = [
        _likeliest(logits[i] - normaliser[i], s.request.top_logprobs)
        if s.request.top_logprobs
        else ()
        for i, s in enumerate(sequences)
    ]
    return Choices(tokens, logprobs, top)


def log_sum_exp(logits: Floats) -> Floats:
    """Return log Σ exp over the vocabulary (B,)."""
    highest = logits.max(axis=1)
    out: Floats = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest
    return out


def score(logits: Floats, tokens: Ids) -> float:
    """Return the log-probability of *tokens* (T,), each by its own row of *logits* (T, V)."""
    if not len(tokens):
        return 0.0
    chosen = logits[np.arange(len(tokens)), tokens]
    return float((chosen - log_sum_exp(logits)).sum(dtype=np.float64))


def penalised(
    logits: Floats,
    in_prompt: Mask,
    counts: Floats,
    *,
    repetition: Floats,
    presence: Floats,
    frequency: Floats,
) -> Floats:
    """Return *logits* (B, V) with penalties (B,) on tokens seen in prompt or answer."""
    seen = in_prompt | (counts > 0)
    factor = np.where(seen, repetition[:, None], np.float32(1))
    scaled = np.where(logits > 0, logits / factor, logits * factor)
    out: Floats = scaled - presence[:, None] * (counts > 0) - frequency[:, None] * counts
    return out


def probabilities(
    logits: Floats, temperature: Floats, top_k: Ids, top_p: Floats, min_p: Floats
) -> Floats:
    """Return what is drawn from (B, V), the likeliest token at 1; 0 where a token is ruled out.

    Settings are (B,); *temperature* is positive and *top_k* 0 means no limit. Of equally likely
    tokens the lower ids are kept.
    """
    scaled = (logits - logits.max(axis=1, keepdims=True)) / temperature[:, None]
    weights: Floats = np.exp(scaled, dtype=np.float32)
    limited = np.flatnonzero((top_k > 0) | (top_p < 1))
    if limited.size:
        kept = _nucleus(weights[limited], top_k[limited], top_p[limited])
        weights[limited] = np.where(kept, weights[limited], 0)
    weights[weights < min_p[:, None]] = 0
    return weights


def draw(weights: Floats, uniform: Doubles) -> Ids:
    """Draw a token per row by inverting the distribution at *uniform* (B,), in [0, 1).

    First a block of tokens is found, then the token in it: adding up in order is slow.
    """
    rows, vocabulary = weights.shape
    blocks = -(-vocabulary // _BLOCK)
    padded = np.zeros((rows, blocks * _BLOCK))
    padded[:, :vocabulary] = weights
    parts = padded.reshape(rows, blocks, _BLOCK)
    block, left = _inverse(parts.sum(axis=2), uniform * padded.sum(axis=1))
    token, _ = _inverse(parts[np.arange(rows), block], left)
    out: Ids = block * _BLOCK + token
    return out


def _inverse(weights: Doubles, target: Doubles) -> tuple[Ids, Doubles]:
    """Return the first index (B,) at which the sum exceeds *target*, and what is left of it there.

    Where rounding puts the target beyond the whole sum, that is the last index with any weight.
    """
    reached = weights.cumsum(axis=1)
    last = weights.shape[1] - 1 - (weights[:, ::-1] > 0).argmax(axis=1)
    index = np.minimum((reached <= target[:, None]).sum(axis=1), last)
    rows = np.arange(len(index))
    # Never below zero, where rounding would choose a first entry of no weight.
    return index, np.maximum(target - (reached[rows, index] - weights[rows, index]), 0)


def _tokens(logits: Floats, sequences: Seq[Sequence]) -> Ids:
    adjusted = _allowed(_with_penalties(logits, sequences), sequences)
    tokens: Ids = adjusted.argmax(axis=1)
    drawn = [i for i, s in enumerate(sequences) if s.rng is not None]
    if drawn:
        tokens[drawn] = _drawn(adjusted[drawn], [sequences[i] for i in drawn])
    return tokens


def _with_penalties(logits: Floats, sequences: Seq[Sequence]) -> Floats:
    rows = [i for i, s in enumerate(sequences) if s.request.sampling.penalises]
    if not rows:
        return logits
    marked = [_marked(sequences[i], logits.shape[1]) for i in rows]
    settings = [sequences[i].request.sampling for i in rows]
    adjusted = logits.copy()
    adjusted[rows] = penalised(
        logits[rows],
        np.stack([in_prompt for in_prompt, _ in marked]),
        np.stack([counts for _, counts in marked]),
        repetition=np.array([s.repetition_penalty for s in settings], np.float32),
        presence=np.array([s.presence_penalty for s in settings], np.float32),
        frequency=np.array([s.frequency_penalty for s in settings], np.float32),
    )
    return adjusted


def _allowed(logits: Floats, sequences: Seq[Sequence]) -> Floats:
    """Return *logits* (B, V) with -inf where a sequence's grammar rules a token out."""
    packed = {i: s.matcher.allowed() for i, s in enumerate(sequences) if s.matcher is not None}
    if not packed:
        return logits
    rows, vocabulary = list(packed), logits.shape[1]
    bits = np.unpackbits(np.stack(list(packed.values())), axis=1, bitorder="little")
    # Whoever allows nothing has failed: the choice is void, but it must be one.
    bits |= ~bits.any(axis=1, keepdims=True)
    # Clipped, since an infinite logit would make what is ruled out as likely as what is not.
    finite = np.nan_to_num(logits[rows])
    adjusted = logits.copy()
    adjusted[rows] = np.where(bits[:, :vocabulary], finite, -np.inf)
    return adjusted


def _marked(sequence: Sequence, vocabulary: int) -> tuple[Mask, Floats]:
    """Return the sequence's marks, made when first needed."""
    if sequence.in_prompt is None or sequence.counts is None:
        sequence.in_prompt = np.zeros(vocabulary, np.bool_)
        sequence.in_prompt[sequence.request.tokens] = True
        found = np.bincount(sequence.answer, minlength=vocabulary)
        sequence.counts = found.astype(np.float32)
    return sequence.in_prompt, sequence.counts


def _drawn(logits: Floats, sequences: Seq[Sequence]) -> Ids:
    settings = [s.request.sampling for s in sequences]
    weights = probabilities(
        logits,
        np.array([s.temperature for s in settings], np.float32),
        np.array([s.top_k for s in settings]),
        np.array([s.top_p for s in settings], np.float32),
        np.array([s.min_p for s in settings], np.float32),
    )
    return draw(weights, np.array([s.rng.random() for s in sequences if s.rng is not None]))


def _nucleus(weights: Floats, top_k: Ids, top_p: Floats) -> Mask:
    """Return which tokens (B, V) both limits keep, at least one per row."""
    vocabulary = weights.shape[1]
    size = np.where(top_k > 0, np.minimum(top_k, vocabulary), vocabulary)
    descending = np.sort(weights, axis=1)[:, ::-1][:, : size.max()]
    if (top_p < 1).any():
        ranks = np.arange(descending.shape[1])
        reached = np.where(ranks < size[:, None], descending, 0).cumsum(axis=1, dtype=np.float64)
        needed = (reached < top_p[:, None] * reached[:, -1:]).sum(axis=1) + 1
        size = np.minimum(size, needed)
    return _largest(weights, descending[np.arange(len(size)), size - 1], size)


def _largest(weights: Floats, threshold: Floats, size: Ids) -> Mask:
    """Return the *size* (B,) largest of each row, the smallest of which is *threshold* (B,)."""
    kept: Mask = weights >= threshold[:, None]
    for row in np.flatnonzero(kept.sum(axis=1) > size):
        level = np.flatnonzero(weights[row] == threshold[row])
        kept[row, level[size[row] - kept[row].sum() :]] = False
    return kept


def _likeliest(logprobs: Floats, count: int) -> tuple[tuple[int, float], ...]:
    count = min(count, len(logprobs))
    ids = np.argpartition(-logprobs, count - 1)[:count]
    ordered = ids[np.lexsort((ids, -logprobs[ids]))]
    return tuple((int(i), float(logprobs[i])) for i in ordered)
