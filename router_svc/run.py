"""One request on its way, its calls, and what dispatch needs of its surroundings."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from router_svc import wire
from router_svc.core.decide import Decision
from router_svc.core.features import Features
from router_svc.core.hedging import late_after_s
from router_svc.core.patience import Patience
from router_svc.core.reward import Step
from router_svc.core.twist import AS_ASKED, Twist
from router_svc.core.types import Ask
from router_svc.fleet import Lease
from router_svc.wire import Event
from services.kit.errors import UnavailableError


class LostError(UnavailableError):
    """A connection ended, or was not to be had: nobody said a word against the request."""


class HungError(LostError):
    """A call that the router gave up, because its replica answers nobody any more."""


class NobodyError(UnavailableError):
    """No replica can take the request now.

    *away*: one that could is stopped, or drains, or is left out for a while.
    """

    def __init__(self, message: str, *, away: bool) -> None:
        super().__init__(message, retry_after_s=1.0)
        self.away = away


class Upstream(Protocol):
    """One request, ready to be sent to any replica."""

    def __call__(
        self,
        model: str,
        lease: Lease,
        timeout_s: float | None,
        behind: wire.Continuation | None = None,
        twist: Twist = AS_ASKED,
    ) -> AsyncGenerator[Event, None]:
        """Stream the events of the leased replica, of what follows *behind*.

        Raises ZetaError, LostError where no replica said so; closing it cancels the call, and so
        does the lease's `abort`.
        """
        ...


class Scores(Protocol):
    """The request's input, ready to have answers to it scored."""

    async def __call__(
        self, model: str, answers: Sequence[str], timeout_s: float | None
    ) -> list[float]:
        """Return the mean log-probability of each token of each answer. Raises ZetaError."""
        ...


def not_here(*_: object, **__: object) -> AsyncGenerator[Event, None]:
    """Stand in for the upstream of a run whose caller asks the replica itself."""
    raise AssertionError("a run that is carried out elsewhere")


async def no_scores(model: str, answers: Sequence[str], timeout_s: float | None) -> list[float]:
    """Stand in for the scores of such a run, which has one answer."""
    raise AssertionError("a run that is carried out elsewhere", model, answers, timeout_s)


class Observer(Protocol):
    """Learns from calls and judges answers; the learner, or a fake."""

    def answered(self, call: "Call", lease: Lease, features: Features) -> None:
        """Take in a call that was answered."""
        ...

    def silent(self, call: "Call", silent_s: float, *, begun: bool) -> None:
        """Take in how long a call gave no token, *begun* if it gave one in the end."""
        ...

    def confidence(self, model: str, mean_logprob: float, quality: float) -> float:
        """Return the probability that an answer is right."""
        ...


PREDICTED: Final = (
    "expected_s",
    "total_p90_s",
    "expected_ttft_s",
    "ttft_p90_s",
    "late_s",
    "output_tokens",
)
"""What a call knows of the replica that it is to go to."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One model call, as far as it has got."""

    model: str
    replica: str
    part: str
    """What it does in the plan, in the contract's words: "single", "voter", "backup" …"""
    twist: Twist = AS_ASKED
    expected_s: float = 0.0
    """What the decision took it to need, median."""
    total_p90_s: float = 0.0
    expected_ttft_s: float = 0.0
    ttft_p90_s: float = 0.0
    late_s: float = 0.0
    """Time without a token after which it is late: the 95th percentile."""
    output_tokens: float = 0.0
    """What its answer was expected to have."""
    tokens: int = 0
    """Tokens of the answer that have come."""
    logprob: float = 0.0
    """Their log-probability, as far as it was told."""
    prompt_tokens: int = 0
    behind: int = 0
    """Events of the answer that others had shown before; `Run.shown` goes on with this call's."""
    taken: bool = False
    """Whether its replica has said that it works on it."""
    ttft_s: float = 0.0
    total_s: float = 0.0
    deltas: list[Event] = field(default_factory=list)
    """What is held back; nothing of a call that streams."""
    text: list[str] = field(default_factory=list)
    """Parts of the answer, where it is held back."""
    last: Event | None = None
    """Its `Finished`."""
    scored: bool = False
    """True of a scorer, which has no answer of its own, once it is done."""
    agrees: bool | None = None
    error: str = ""

    def got(self, event: Event) -> None:
        """Count a delta that came."""
        delta = event.delta
        self.tokens += len(delta.token_ids)
        if delta.logprobs:
            self.logprob += sum([each.logprob for each in delta.logprobs])

    @property
    def answer(self) -> str:
        """The whole text."""
        return "".join(self.text)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer, or of all answers; of one that was cut short, those that came."""
        return self.last.finished.usage.completion_tokens if self.last else self.tokens

    @property
    def answer_tokens(self) -> list[int]:
        """Tokens of each answer of the call."""
        several = self.last.finished.samples if self.last else ()
        return [end.completion_tokens for end in several] or [self.completion_tokens]

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the replica did not have to feed."""
        return self.last.finished.usage.cached_prompt_tokens if self.last else 0

    @property
    def mean_logprob(self) -> float | None:
        """How sure the model was; None where it does not say."""
        if self.last is None or not self.last.finished.HasField("mean_logprob"):
            return None
        return self.last.finished.mean_logprob


@dataclass(slots=True, kw_only=True)
class Run:
    """One request on its way."""

    id: str
    ask: Ask
    features: Features
    decision: Decision
    upstream: Upstream
    scores: Scores
    replan: Callable[[frozenset[str], str], Decision]
    """Decides again, for a single model, without the replicas that failed, if there is a choice
    for the model that is named. Raises NobodyError."""
    explain: Callable[[], wire.DecisionMessage | None]
    arrived_s: float
    deadline_at_s: float | None
    decided_s: float = 0.0
    """Seconds since 1970."""
    queue_s: float = 0.0
    calls: list[Call] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    """Replicas that are there and cannot do it."""
    away: set[str] = field(default_factory=set)
    """Replicas that could not for now: lost, draining, full."""
    patience: Patience = field(default_factory=Patience)
    shown: list[Event] = field(default_factory=list)
    """Every delta that the caller has."""
    moves: list[Event] = field(default_factory=list)
    """Every handover that the caller was told of."""
    shown_by: set[str] = field(default_factory=set)
    """The models that made them."""
    broken: list[Step] = field(default_factory=list)
    """Parts of the answer that broke off and went on elsewhere."""
    started: bool = False
    first: Event | None = None
    """The answer's `Started`, once the caller has it."""
    ttft_s: float = 0.0
    total_s: float = 0.0
    steps: tuple[Step, ...] = ()

    def note(self, event: Event) -> None:
        """Remember what the caller is given."""
        match event.WhichOneof("event"):
            case "delta":
                self.shown.append(event)
            case "handover":
                self.moves.append(event)
            case "started":
                self.first = event

    def behind(self, after_seq: int) -> list[Event]:
        """Return what followed delta *after_seq*: deltas, and between them the handovers."""
        moves = [(e.handover.after_seq, 1, e) for e in self.moves]
        deltas = [(e.delta.seq, 0, e) for e in self.shown]
        known = (after_seq, 0)
        return [e for *at, e in sorted((*moves, *deltas), key=_place) if (*at,) > known]

    @property
    def told_replica(self) -> str:
        """Where the answer is made, as far as the caller knows."""
        if self.moves:
            return self.moves[-1].handover.to_replica
        return self.first.started.replica if self.first else ""

    @property
    def last_seq(self) -> int:
        """Number of the last delta that the caller has; 0 before the first."""
        return self.shown[-1].delta.seq if self.shown else 0


def _place(event: tuple[int, int, Event]) -> tuple[int, int]:
    """Sort a handover behind the delta that it follows."""
    return event[:2]


def call_of(
    decision: Decision, model: str, part: str, *, spare: bool = False, twist: Twist = AS_ASKED
) -> Call:
    """Begin a call of *model* on the replica that was decided for it, or on its *spare* one."""
    c = decision.candidates
    i = c.models.index(model)
    return Call(
        model=model,
        replica=c.spares[i] if spare else c.replicas[i],
        part=part,
        twist=twist,
        expected_s=c.total_p50_s[i],
        total_p90_s=c.total_p90_s[i],
        expected_ttft_s=c.ttft_p50_s[i],
        ttft_p90_s=c.ttft_p90_s[i],
        late_s=late_after_s(c.ttft_p50_s[i], c.ttft_p90_s[i]),
        output_tokens=c.output_tokens[i],
    )
