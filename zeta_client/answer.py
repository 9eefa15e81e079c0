"""One answer, put together as its events arrive."""

from dataclasses import dataclass, field

from zeta.inference.v1.inference_service_pb2 import Finished, FinishReason, GenerateResponse

from services.kit.errors import StreamBrokenError


@dataclass(slots=True, kw_only=True)
class Answer:
    """What a caller has of an answer so far; times are the caller's own, from its request on."""

    text: str = ""
    decision_id: str = ""
    plan: str = ""
    model: str = ""
    replica: str = ""
    ttft_s: float = 0.0
    total_s: float = 0.0
    handovers: list[str] = field(default_factory=list)
    """The replicas that took over, in order."""
    finished: Finished | None = None

    def add(self, event: GenerateResponse, elapsed_s: float) -> None:
        """Take in one event, *elapsed_s* after the request was sent."""
        self.total_s = elapsed_s
        match event.WhichOneof("event"):
            case "started":
                started = event.started
                self.decision_id, self.plan = started.decision_id, started.plan
                self.model, self.replica = started.model, started.replica
            case "delta":
                self.text += event.delta.text
                self.ttft_s = self.ttft_s or elapsed_s
            case "handover":
                self.handovers.append(event.handover.to_replica)
                self.model = event.handover.to_model or self.model
            case "finished":
                self.finished = event.finished
                self.model = event.finished.model or self.model

    @property
    def complete(self) -> Finished:
        """Return the last event. Raises StreamBrokenError where the answer was cut short."""
        if self.finished is None:
            raise StreamBrokenError("the answer ended before it was complete")
        return self.finished

    @property
    def finish_reason(self) -> str:
        """Say why the answer ended, in lower case: "stop" or "length"."""
        return FinishReason.Name(self.complete.reason).removeprefix("FINISH_REASON_").lower()

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the answer over the whole time that the caller waited for it."""
        tokens = self.complete.usage.completion_tokens
        return tokens / self.total_s if self.total_s > 0 else 0.0
