"""One answer in the making: tokens in, pieces of final text out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.model.engine.types import FinishReason, Generated
from services.model.text import Detokeniser, StopStrings, Text


@dataclass(slots=True)
class Piece:
    """What a run of tokens added to an answer."""

    text: str = ""
    tokens: list[Generated] = field(default_factory=list)


class Answer:
    """Turns generated tokens into text, ends it at a stop string, and adds up what it took."""

    def __init__(self, text: Text, stops: Sequence[str]) -> None:
        self._detokeniser, self._stops = Detokeniser(text), StopStrings(stops)
        self._logprobs = 0.0
        self._pending, self._ahead = "", 0
        self.completion_tokens = 0
        """Without those that another server generated."""
        self.finish: FinishReason | None = None

    @property
    def mean_logprob(self) -> float | None:
        """Mean natural log-probability of the tokens so far, None without any."""
        return self._logprobs / self.completion_tokens if self.completion_tokens else None

    def go_on(self, tokens: Sequence[int], shown: str, finish: FinishReason | None) -> None:
        """Begin behind *tokens*, which another server generated and of which *shown* is out.

        *finish* says that they are the whole answer; a stop string among them says so as well.
        """
        text = ""
        for i, token in enumerate(tokens, start=1):
            text += self._text_of(token, finish if i == len(tokens) else None)
            if self.finish:
                break
        # Another tokenizer may write the text a little differently: what is out stays as it is.
        if text.startswith(shown):
            self._pending = text[len(shown) :]
        elif shown.startswith(text):
            self._ahead = len(shown) - len(text)

    def feed(self, generated: Iterable[Generated]) -> Piece:
        """Take the next tokens; those after the end of the answer are left out."""
        piece = Piece(text=self._pending)
        self._pending = ""
        for token in generated:
            if self.finish:
                break
            piece.tokens.append(token)
            self.completion_tokens += 1
            self._logprobs += token.logprob
            piece.text += self._new(self._text_of(token.token, token.finish))
        return piece

    def _new(self, text: str) -> str:
        """Return what of *text* is not out yet."""
        new = text[self._ahead :]
        self._ahead -= len(text) - len(new)
        return new

    def _text_of(self, token: int, finish: FinishReason | None) -> str:
        out = self._stops.feed(self._detokeniser.feed(token))
        self.finish = finish
        if finish and not self._stops.stopped:
            out += self._stops.feed(self._detokeniser.flush())
        if self._stops.stopped:
            self.finish = FinishReason.STOP
        elif finish:
            out += self._stops.flush()
        return out
