"""What an answer must look like, compiled for one vocabulary by llguidance."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from services.kit.errors import NotBuiltError, invalid

Form: TypeAlias = Literal["json_schema", "regex", "choice"]

_WHITESPACE = r"( |\n {0,32})?"
"""Between the parts of a JSON answer: any layout, but no answer of blanks without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What an answer must look like, as a caller says it."""

    form: Form
    texts: tuple[str, ...]
    """One schema, one regular expression, or the options."""


class Grammars:
    """Compiles constraints for one tokenizer; safe to use from several threads.

    *serialised* is a tokenizer.json, *vocabulary* the number of logits, at least as many as tokens.
    """

    def __init__(self, serialised: str, *, vocabulary: int, stop_ids: frozenset[int]) -> None:
        self._serialised, self._vocabulary = serialised, vocabulary
        self._stop_ids = stop_ids

    def compile(self, constraint: Constraint) -> "CompiledGrammar":
        """Compile *constraint*, which takes milliseconds, the first time a second.

        Raises InvalidRequestError where it is written wrongly or nothing can satisfy it,
        NotBuiltError where the model's tokenizer cannot be followed.
        """
        field = f"constraint.{constraint.form}"
        try:
            source = _SOURCES[constraint.form](constraint.texts)
        except (ValueError, RecursionError) as error:
            raise invalid(field, f"cannot be read: {error}") from error
        start = LLMatcher(self._tokenizer, source, log_level=0)
        # Some of what cannot be satisfied shows only at the first token.
        start.compute_bitmask()
        if start.is_error():
            raise invalid(field, _one_line(start.get_error()))
        return CompiledGrammar(start)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        if not self._stop_ids:
            raise NotBuiltError("constraint: this model has no token that ends an answer")
        try:
            return LLTokenizer(
                self._serialised, n_vocab=self._vocabulary, eos_token=sorted(self._stop_ids)
            )
        except ValueError as error:
            raise NotBuiltError(f"constraint: not with this model's tokenizer: {error}") from error


class CompiledGrammar:
    """A grammar for one vocabulary."""

    def __init__(self, start: LLMatcher) -> None:
        self._start = start

    def matcher(self) -> "GrammarMatcher":
        """Return a matcher at the beginning of an answer."""
        return GrammarMatcher(self._start.deep_copy())


class GrammarMatcher:
    """As `engine.types.Matcher`."""

    def __init__(self, state: LLMatcher) -> None:
        self._state = state
        self.error = ""

    def allowed(self) -> NDArray[np.uint8]:
        """As `Matcher.allowed`."""
        mask = np.frombuffer(self._state.compute_bitmask(), np.uint8)
        self._note_error()
        return mask

    def accept(self, token: int) -> bool:
        """As `Matcher.accept`."""
        self._state.consume_token(token)
        self._note_error()
        return self._state.is_stopped()

    def _note_error(self) -> None:
        if self._state.is_error():
            self.error = _one_line(self._state.get_error())


def _json_schema(texts: Sequence[str]) -> str:
    schema = json.loads(texts[0])
    if not isinstance(schema, dict):
        raise ValueError("a schema is a JSON object")  # noqa: TRY004 - as JSON's own errors
    options: Any = {"whitespace_pattern": _WHITESPACE}
    # Written anew, since the library puts the text into its own as it is.
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)


def _regex(texts: Sequence[str]) -> str:
    return LLMatcher.grammar_from_regex(texts[0])


def _choice(texts: Sequence[str]) -> str:
    return LLMatcher.grammar_from_regex("|".join(map(_literal, texts)))


def _literal(text: str) -> str:
    """Return a regular expression for *text* that leaves nothing to be read in two ways."""
    return "".join(c if c.isascii() and c.isalnum() else rf"\x{{{ord(c):x}}}" for c in text)


_SOURCES: dict[Form, Callable[[Sequence[str]], str]] = {
    "json_schema": _json_schema,
    "regex": _regex,
    "choice": _choice,
}


def _one_line(error: str) -> str:
    """Return *error* without the library's own state, which follows it."""
    return " ".join(error.partition("<state>")[0].split())
