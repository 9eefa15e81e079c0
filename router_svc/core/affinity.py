"""What each replica is expected to have in its prefix cache: sessions, and equal beginnings.

After a turn, the replica that answered holds the whole conversation so far; whoever answers the
next turn elsewhere has to feed it again. How much of what is expected is really found there is
learned per replica from what models report (`Usage.cached_prompt_tokens`). R = replicas.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import numpy as np

from router_svc.core.types import Ask, Floats

PREFIX_CHARACTERS: Final = 256
"""Requests that begin with the same so many characters share a prefix."""
_ENTRIES: Final = 10_000
"""Sessions and prefixes that are remembered: those used last."""
_LEARNED: Final = 0.2
"""How far one report moves the share that is found."""
_LEAST: Final = 0.05


class Affinity:
    """Where beginnings are cached. Mutable, one owner."""

    def __init__(self, replicas: int) -> None:
        """Expect of each of R *replicas* to find what it should have, until it reports."""
        self._held: OrderedDict[str, dict[int, float]] = OrderedDict()
        """By session or prefix: replica number to tokens that it was fed."""
        self._found = np.ones(replicas)
        """(R,) Share of what was expected that was found."""

    def cached(self, ask: Ask, prompt_tokens: float) -> Floats:
        """Return how many of *prompt_tokens* each replica is expected not to have to feed; (R,)."""
        return self._expected(ask, prompt_tokens) * self._found

    def in_session(self, ask: Ask) -> bool:
        """Whether this is a later turn of a session."""
        return bool(ask.session) and _session(ask) in self._held

    def answered(
        self,
        ask: Ask,
        replica: int,
        *,
        prompt_tokens: float,
        completion_tokens: float,
        cached_tokens: float,
    ) -> None:
        """Take in that *replica* (its number) answered, and what it found in its cache."""
        expected = float(self._expected(ask, prompt_tokens)[replica])
        if expected > 0.0:
            found = min(cached_tokens / expected, 1.0)
            self._found[replica] += _LEARNED * (found - self._found[replica])
            self._found[replica] = max(self._found[replica], _LEAST)
        for key, tokens in _keys(ask, prompt_tokens, completion_tokens):
            self._held.setdefault(key, {})[replica] = tokens
            self._held.move_to_end(key)
            if len(self._held) > _ENTRIES:
                self._held.popitem(last=False)

    def _expected(self, ask: Ask, prompt_tokens: float) -> Floats:
        """Return what each replica should have of the prompt, were nothing ever dropped; (R,)."""
        tokens = np.zeros(len(self._found))
        for key, _ in _keys(ask, prompt_tokens, 0.0):
            for replica, held in self._held.get(key, {}).items():
                tokens[replica] = max(tokens[replica], min(held, prompt_tokens))
        return tokens


def _keys(ask: Ask, prompt_tokens: float, completion_tokens: float) -> Iterator[tuple[str, float]]:
    """Yield what a request can be recognised by, and how many tokens that stands for."""
    if ask.session:
        yield _session(ask), prompt_tokens + completion_tokens
    if ask.prefix:
        yield ask.prefix, prompt_tokens * PREFIX_CHARACTERS / ask.characters


def _session(ask: Ask) -> str:
    return f"{ask.tenant}\0{ask.session}"
