"""A decoder for tests: logits are a pseudorandom function of the tokens in a slot."""

import numpy as np

from services.model.backends.base import Ids, Logits

_FACTOR = np.uint64(6364136223846793005)


class FakeBackend:
    """Keeps token ids where a real backend keeps keys and values, so that any slot mix-up shows."""

    def __init__(self, *, slots: int, context_tokens: int, vocabulary: int) -> None:
        self.slots, self.context_tokens = slots, context_tokens
        self._cache = np.full((slots, context_tokens), -1, np.int64)
        powers = [pow(int(_FACTOR), n, 2**64) for n in range(context_tokens)]
        self._weights = np.array(powers, np.uint64)
        self._columns = np.arange(1, vocabulary + 1, dtype=np.float64)

    def prefill(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """As `Backend.prefill`."""
        stop = start + len(tokens)
        self._cache[slot, start:stop] = tokens
        lengths = np.arange(stop - wanted + 1, stop + 1)
        return self._logits(np.repeat(self._cache[slot : slot + 1], wanted, axis=0), lengths)

    def hidden(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """As `Encodes.hidden`, of eight dimensions."""
        return self.prefill(slot, start, tokens, wanted)[:, :8]

    def decode(self, tokens: Ids, lengths: Ids) -> Logits:
        """As `Backend.decode`."""
        rows = np.arange(len(tokens))
        self._cache[rows, lengths] = tokens
        return self._logits(self._cache[: len(tokens)], lengths + 1)

    def copy(self, source: int, target: int, length: int) -> None:
        """As `Backend.copy`; forgets what else *target* held."""
        self._cache[target] = -1
        self._cache[target, :length] = self._cache[source, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """As `Backend.swap`; forgets what else the slots held."""
        kept = self._cache[[other, one], :length]
        self._cache[[one, other]] = -1
        self._cache[[one, other], :length] = kept

    def _logits(self, history: Ids, lengths: Ids) -> Logits:
        held = np.arange(self.context_tokens) < lengths[:, None]
        known = np.where(held, history + 2, 0).astype(np.uint64)
        digest = (known * self._weights).sum(axis=1, dtype=np.uint64)
        phase = (digest >> np.uint64(40)).astype(np.float64)
        wave = np.sin(phase[:, None] * 1e-3 + self._columns * (1 + phase[:, None] % 97))
        out: Logits = (4 * wave).astype(np.float32)
        return out
