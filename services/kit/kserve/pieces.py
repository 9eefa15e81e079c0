"""Events of an answer → pieces, and what each output says of a piece."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from zeta.inference.v1 import inference_service_pb2 as inference

from services.kit.kserve.tensors import Scalar

_NO_REASON: Final = "None"
"""The finish reason of an answer that goes on, as the vLLM backend spells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What came of an answer since the piece before, and what is known by then."""

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    logprob: float
    """Of the whole answer so far."""
    model: str
    decision_id: str

    @property
    def last(self) -> bool:
        """Whether the answer is complete."""
        return self.finish_reason != _NO_REASON


OUTPUTS: Final[Mapping[str, tuple[str, Callable[[Piece], Scalar]]]] = {
    "text_output": ("BYTES", lambda piece: piece.text.encode()),
    "finish_reason": ("BYTES", lambda piece: piece.finish_reason.encode()),
    "cumulative_logprob": ("FP32", lambda piece: piece.logprob),
    "num_input_tokens": ("UINT32", lambda piece: piece.input_tokens),
    "num_output_tokens": ("UINT32", lambda piece: piece.output_tokens),
    "model": ("BYTES", lambda piece: piece.model.encode()),
    "decision_id": ("BYTES", lambda piece: piece.decision_id.encode()),
}
"""Every output: its kind of elements, and what it says of a piece."""


class Answer:
    """Gathers the events of one answer into pieces."""

    def __init__(self, begins: str = "") -> None:
        self._text = [begins]
        self._tokens, self._logprob, self._finish = 0, 0.0, _NO_REASON
        self._started = inference.Started()
        self._model = ""

    def feed(self, event: inference.GenerateResponse) -> bool:
        """Take the next event; True where there is something to show."""
        match event.WhichOneof("event"):
            case "started":
                self._started, self._model = event.started, event.started.model
            case "delta":
                self._text.append(event.delta.text)
                self._tokens += len(event.delta.token_ids)
                self._logprob += sum(entry.logprob for entry in event.delta.logprobs)
            case "finished":
                name = inference.FinishReason.Name(event.finished.reason)
                self._finish = name.removeprefix("FINISH_REASON_").lower()
                self._model = event.finished.model or self._model
        return self._finish != _NO_REASON or any(self._text)

    def take(self) -> Piece:
        """Return what came since the last time."""
        piece = Piece(
            text="".join(self._text),
            finish_reason=self._finish,
            input_tokens=self._started.prompt_tokens,
            output_tokens=self._tokens,
            logprob=self._logprob,
            model=self._model,
            decision_id=self._started.decision_id,
        )
        self._text, self._tokens = [], 0
        return piece
