"""One answer, put together as its events arrive."""

from dataclasses import dataclass, field

from zeta.inference.v1.inference_service_pb2 import (
    Finished,
    FinishReason,
    GenerateResponse,
    SampleEnd,
)

from services.kit.errors import StreamBrokenError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One of the answers to a request."""

    text: str
    finish_reason: str
    """"stop" or "length"."""
    completion_tokens: int
    mean_logprob: float | None
    """Mean natural log-probability of its tokens; None without any."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What a caller has of an answer so far; times are the caller's own, from its request on."""

    text: str = ""
    """Of several answers, the first."""
    others: dict[int, str] = field(default_factory=dict)
    """The texts of the others, by number."""
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
                self._extend(event.delta.sample, event.delta.text)
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
        return _reason(self.complete.reason)

    @property
    def samples(self) -> list[Sample]:
        """Return every answer, by number; mostly there is one. Raises as `complete`."""
        last = self.complete
        alone = SampleEnd(reason=last.reason, completion_tokens=last.usage.completion_tokens)
        if last.HasField("mean_logprob"):
            alone.mean_logprob = last.mean_logprob
        return [
            Sample(
                text=self.others.get(i, "") if i else self.text,
                finish_reason=_reason(end.reason),
                completion_tokens=end.completion_tokens,
                mean_logprob=end.mean_logprob if end.HasField("mean_logprob") else None,
            )
            for i, end in enumerate(last.samples or [alone])
        ]

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the answer over the whole time that the caller waited for it."""
        tokens = self.complete.usage.completion_tokens
        return tokens / self.total_s if self.total_s > 0 else 0.0

    def _extend(self, sample: int, text: str) -> None:
        if sample:
            self.others[sample] = self.others.get(sample, "") + text
        else:
            self.text += text


def _reason(reason: FinishReason.ValueType) -> str:
    return FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower()
