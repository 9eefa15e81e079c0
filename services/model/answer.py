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
        self.completion_tokens = 0
        self.finish: FinishReason | None = None

    @property
    def mean_logprob(self) -> float | None:
        """Mean natural log-probability of the tokens so far, None without any."""
        return self._logprobs / self.completion_tokens if self.completion_tokens else None

    def feed(self, generated: Iterable[Generated]) -> Piece:
        """Take the next tokens; those after the end of the answer are left out."""
        piece = Piece()
        for token in generated:
            if self.finish:
                break
            piece.tokens.append(token)
            piece.text += self._feed(token)
        return piece

    def _feed(self, token: Generated) -> str:
        self.completion_tokens += 1
        self._logprobs += token.logprob
        out = self._stops.feed(self._detokeniser.feed(token.token))
        self.finish = token.finish
        if token.finish and not self._stops.stopped:
            out += self._stops.feed(self._detokeniser.flush())
        if self._stops.stopped:
            self.finish = FinishReason.STOP
        elif token.finish:
            out += self._stops.flush()
        return out
