"""Make any backend as slow as a larger model on its own hardware, without the work.

A small model with a large one's pace shows how a fleet behaves under load: queues, deadlines and
balancing depend on how long steps take, not on what is computed in them.
"""

import time
from collections.abc import Callable

from services.model.backends.base import Backend, Decoded, Ids, Logits


class Paced:
    """*backend*, whose calls take at least as long as their pace says."""

    def __init__(
        self,
        backend: Backend,
        *,
        step_s: float,
        step_s_per_running: float,
        prefill_s_per_token: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """A decode step of B rows takes step_s + B step_s_per_running, a prompt by its tokens."""
        self.slots, self.context_tokens = backend.slots, backend.context_tokens
        self._backend, self._clock, self._pause = backend, clock, pause
        self._step_s, self._row_s = step_s, step_s_per_running
        self._token_s = prefill_s_per_token

    def prefill(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """See Backend."""
        began_s = self._clock()
        logits = self._backend.prefill(slot, start, tokens, wanted)
        self._until(began_s + len(tokens) * self._token_s)
        return logits

    def decode(self, tokens: Ids, lengths: Ids) -> Decoded:
        """See Backend."""
        began_s = self._clock()
        decoded = self._backend.decode(tokens, lengths)
        self._until(began_s + self._step_s + len(tokens) * self._row_s)
        return decoded

    def copy(self, source: int, target: int, length: int) -> None:
        """See Backend."""
        self._backend.copy(source, target, length)

    def swap(self, one: int, other: int, length: int) -> None:
        """See Backend."""
        self._backend.swap(one, other, length)

    def _until(self, at_s: float) -> None:
        if (left_s := at_s - self._clock()) > 0.0:
            self._pause(left_s)
