"""The engine's values. Letters: T tokens."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; the defaults choose the likeliest."""

    temperature: float = 0.0
    top_k: int = 0
    """0: no limit."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0

    @property
    def penalises(self) -> bool:
        """True where earlier tokens change the logits."""
        neutral = (1.0, 0.0, 0.0)
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != neutral


GREEDY = Sampling()


class Matcher(Protocol):
    """How far one answer has come in its grammar."""

    error: str
    """Why the answer cannot go on; empty while it can."""

    def allowed(self) -> NDArray[np.uint8]:
        """Return which tokens may follow, as bits, the lowest first (⌈V/8⌉ or more,).

        Stop ids are among them where the answer may end here, and only there.
        """
        ...

    def accept(self, token: int) -> bool:
        """Take a token that is no stop id; True where nothing may follow."""
        ...


class Grammar(Protocol):
    """What an answer must look like."""

    def matcher(self) -> Matcher:
        """Return a matcher at the beginning of an answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one caller wants of the engine."""

    id: int
    tokens: Ids
    """The prompt (T,); with `scored_tokens`, the prompt and its continuation."""
    answered: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    """The beginning of the answer (T,), where another engine made it; fewer than `max_tokens`."""
    max_tokens: int = 0
    """Most tokens of the answer; prompt and answer together fit in a slot."""
    sampling: Sampling = GREEDY
    stop_ids: frozenset[int] = frozenset()
    grammar: Grammar | None = None
    """Rules tokens out before they are chosen; log-probabilities know nothing of it."""
    top_logprobs: int = 0
    """Alternatives to return with each token."""
    rank: int = 1
    """Lower ranks go first, equal ranks in order of arrival; 0 takes the places of others."""
    deadline_s: float = float("inf")
    scored_tokens: int = 0
    """If not 0: generate nothing, and give the log-probability of the last so many tokens."""

    @property
    def feed_tokens(self) -> int:
        """Tokens to feed before the first choice, or for the whole score."""
        return len(self.tokens) - bool(self.scored_tokens)

    @property
    def reserved_tokens(self) -> int:
        """Cache tokens that the request may come to hold."""
        return self.feed_tokens + self.max_tokens


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One request inside the engine."""

    request: Request
    slot: int = -1
    history: Ids = field(init=False)
    """The prompt, the answer so far, and room for the rest of it (T,)."""
    cached: int = 0
    """Tokens whose keys and values are in the slot."""
    reused: int = 0
    """How many of them were there when it took the slot."""
    began: bool = False
    """True once anything was fed, whatever became of the slot."""
    generated: int = 0
    last: int = -1
    """The token to feed next while decoding."""
    logprob: float = 0.0
    """Sum so far, while scoring."""
    rng: np.random.Generator | None = None
    in_prompt: NDArray[np.bool_] | None = None
    """(V,), where earlier tokens are penalised."""
    counts: NDArray[np.float32] | None = None
    """Occurrences in the answer (V,), where earlier tokens are penalised."""
    matcher: Matcher | None = field(init=False)

    def __post_init__(self) -> None:
        answered = self.request.answered
        self.generated = len(answered)
        room = np.zeros(self.request.max_tokens - len(answered), np.int64)
        self.history = np.concatenate([self.request.tokens, answered, room])
        self.matcher = self.request.grammar.matcher() if self.request.grammar else None
        if self.matcher is not None:
            for token in answered.tolist():
                self.matcher.accept(token)
        if self.request.sampling.temperature > 0:
            self.rng = np.random.default_rng(self.request.sampling.seed)
            # One number a token: what follows is drawn as it would have been.
            self.rng.random(len(answered))

    @property
    def feed_tokens(self) -> int:
        """Tokens to feed before the next choice, or for the whole score."""
        return self.request.feed_tokens + self.generated

    @property
    def first_wanted(self) -> int:
        """Position of the first token to feed whose logits matter."""
        return self.feed_tokens - max(self.request.scored_tokens, 1)

    @property
    def answer(self) -> Ids:
        """The tokens of the answer so far (T,)."""
        start = len(self.request.tokens)
        return self.history[start : start + self.generated]

    @property
    def held(self) -> Ids:
        """The tokens whose keys and values are in the slot (T,)."""
        return self.history[: self.cached]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a prompt to feed in this step."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def wanted(self) -> int:
        """Positions at the end of the chunk whose logits matter."""
        return max(0, self.stop - max(self.start, self.sequence.first_wanted))

    @property
    def completes(self) -> bool:
        """True where nothing of the prompt is left after this chunk."""
        return self.stop == self.sequence.feed_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the engine may hold and do at once."""

    max_running: int
    kv_tokens: int
    """Cache tokens over all running requests, what they may come to need included."""
    chunk_tokens: int
    """Prompt tokens per step."""


@dataclass(frozen=True, slots=True)
class Generated:
    """One more token of an answer."""

    id: int
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    finish: FinishReason | None

    @property
    def ends(self) -> bool:
        """True where nothing follows."""
        return self.finish is not None


@dataclass(frozen=True, slots=True)
class Scored:
    """The log-probability of a continuation."""

    id: int
    logprob: float

    @property
    def ends(self) -> bool:
        """True: there is one score."""
        return True


@dataclass(frozen=True, slots=True)
class Failed:
    """An answer that its grammar lets go neither on nor end."""

    id: int
    reason: str

    @property
    def ends(self) -> bool:
        """True: nothing follows."""
        return True


Answered: TypeAlias = Generated | Scored
Output: TypeAlias = Answered | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step did."""

    began: dict[int, int] = field(default_factory=dict)
    """Requests whose first tokens were fed, and how many tokens before those were reused."""
    outputs: list[Output] = field(default_factory=list)
    prompt_tokens: int = 0
    """Fed, what was fed anew after a pre-emption included."""
    generated: int = 0
    """Tokens among the outputs."""
    decoded_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """What the slots hold."""

    running: int = 0
    preempted: frozenset[int] = frozenset()
    """Requests that ran and wait again."""
    unfed_tokens: int = 0
    """Prompt tokens that running requests still have to feed."""
    kv_used_tokens: int = 0
