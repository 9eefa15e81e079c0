"""The answers to one request, one or several, as they grow."""

from collections.abc import AsyncIterator, Callable, Sequence

from services.model.answer import Answer, Piece
from services.model.engine.types import Generated
from services.model.loop import Stream
from services.model.state import Times


class Samples:
    """Reads the streams that were submitted together; *cancel* is told of a request that ends."""

    def __init__(
        self,
        answers: Sequence[Answer],
        streams: Sequence[Stream],
        cancel: Callable[[int], None],
    ) -> None:
        self.answers = answers
        self._streams, self._cancel = streams, cancel

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield what comes, with its answer's number, until all have ended.

        Raises the error that ended any of them.
        """
        going, news = list(range(len(self._streams))), self._streams[0].news
        while going:
            await news.wait()
            news.clear()
            for i in tuple(going):
                tokens = [t for t in self._streams[i].taken() if isinstance(t, Generated)]
                if tokens:
                    yield i, self.answers[i].feed(tokens)
                if self.answers[i].finish:
                    going.remove(i)
                    self._cancel(self._streams[i].request.id)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, which all share."""
        return len(self._streams[0].request.tokens)

    @property
    def cached_prompt_tokens(self) -> int:
        """Tokens of it that were in the cache before the first answer was."""
        return self._streams[0].reused_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(answer.completion_tokens for answer in self.answers)

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest answer."""
        return max(answer.completion_tokens for answer in self.answers)

    def times(self) -> Times:
        """Return when the first began and had a token, and when the last ended."""
        each = [stream.times() for stream in self._streams]
        return Times(
            began_s=min(t.began_s for t in each),
            first_s=min(t.first_s for t in each),
            last_s=max(t.last_s for t in each),
        )
