"""What a chosen token does to its sequence."""

from services.model.engine.types import FinishReason, Sequence


def commit(sequence: Sequence, token: int) -> FinishReason | None:
    """Append *token* to the answer; return why the answer ends with it, None where it goes on."""
    sequence.history[len(sequence.request.tokens) + sequence.generated] = token
    sequence.generated += 1
    sequence.last = token
    if sequence.counts is not None:
        sequence.counts[token] += 1
    if token in sequence.request.stop_ids:
        return FinishReason.STOP
    if sequence.matcher is not None and sequence.matcher.accept(token):
        return FinishReason.STOP
    if sequence.generated >= sequence.request.max_tokens:
        return FinishReason.LENGTH
    return None
