"""Choose tokens where a device found the likeliest ones itself.

The candidates settle a choice among the k likeliest tokens (the likeliest is k = 1): temperature,
top-p and min-p come after top-k and look at nothing else. They do not settle it where penalties or
a grammar may lift any token, where no top-k is asked for, or where a tie reaches beyond the last
candidate; then the row's logits are fetched whole. Which way a row goes depends on nothing but its
own logits and settings.

Letters: B sequences, V vocabulary, K candidates.
"""

from collections.abc import Sequence as Seq

import numpy as np

from services.model.backends.base import Decoded, Logits, Ranked
from services.model.engine import sampler
from services.model.engine.sampler import Choices, Floats
from services.model.engine.types import Request, Sequence


def choose(decoded: Decoded, sequences: Seq[Sequence]) -> Choices:
    """As `sampler.choose`, with the same outcome."""
    if isinstance(decoded, np.ndarray):
        return sampler.choose(decoded, sequences)
    settled = np.array([_settles(decoded.logits[i], s.request) for i, s in enumerate(sequences)])
    few, rest = np.flatnonzero(settled), np.flatnonzero(~settled)
    parts = []
    if few.size:
        parts.append((few, _among(decoded, few, [sequences[i] for i in few.tolist()])))
    if rest.size:
        logits = decoded.whole(rest)
        parts.append((rest, sampler.choose(logits, [sequences[i] for i in rest.tolist()])))
    return _joined(parts)


def together(decoded: Decoded | None, prompts: Seq[Logits], sequences: Seq[Sequence]) -> Choices:
    """Choose for the rows of a decode step, and for those of *prompts* behind them."""
    if decoded is None or isinstance(decoded, np.ndarray):
        rows = [*([] if decoded is None else [decoded]), *prompts]
        return sampler.choose(rows[0] if len(rows) == 1 else np.concatenate(rows), sequences)
    count = len(decoded.ids)
    parts = [(np.arange(count), choose(decoded, sequences[:count]))]
    if prompts:
        rest = sampler.choose(np.concatenate(prompts), sequences[count:])
        parts.append((np.arange(count, len(sequences)), rest))
    return _joined(parts)


def _settles(logits: Floats, request: Request) -> bool:
    """Tell whether candidates (K,), the likeliest first, hold all that may be chosen or shown."""
    sampling = request.sampling
    if sampling.penalises or request.grammar is not None:
        return False
    needed = 1 if sampling.temperature == 0 else sampling.top_k
    if not needed:
        return False
    needed = max(needed, request.top_logprobs)
    return needed < len(logits) and bool(logits[needed - 1] > logits[-1])


def _among(decoded: Ranked, rows: sampler.Ids, sequences: Seq[Sequence]) -> Choices:
    """Choose among the candidates of *rows*, put in the order of their ids."""
    order = decoded.ids[rows].argsort(axis=1)
    ids = np.take_along_axis(decoded.ids[rows], order, axis=1)
    logits = np.take_along_axis(decoded.logits[rows], order, axis=1)
    normaliser = decoded.normaliser[rows]
    found = sampler.choose(logits, sequences, normaliser)
    tokens = ids[np.arange(len(rows)), found.tokens]
    top = [
        tuple((int(ids[i, column]), logprob) for column, logprob in row)
        for i, row in enumerate(found.top)
    ]
    return Choices(tokens, found.logprobs, top)


def _joined(parts: Seq[tuple[sampler.Ids, Choices]]) -> Choices:
    """Put the rows of several choices in their places."""
    if len(parts) == 1:
        return parts[0][1]
    places = np.concatenate([rows for rows, _ in parts])
    order = places.argsort()
    top = [entry for _, choices in parts for entry in choices.top]
    return Choices(
        np.concatenate([choices.tokens for _, choices in parts])[order],
        np.concatenate([choices.logprobs for _, choices in parts])[order],
        [top[i] for i in order],
    )
