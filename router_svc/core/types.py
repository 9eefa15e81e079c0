"""The vocabulary of a decision: frozen values without behaviour and without wire format.

R = replicas, M = models, N = candidates (models that can serve now, each with one replica).
What there is for each replica are arrays; what there is for each candidate are plain numbers in
lists, since on so few the arithmetic of arrays takes longer than the one of numbers.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.loads import ReplicaLoads
from router_svc.core.recent import Peaks

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]
Bools: TypeAlias = NDArray[np.bool_]


class Priority(IntEnum):
    """Which requests go first; numbered as on the wire."""

    BATCH = 1
    STANDARD = 2
    CRITICAL = 3


class Reason(IntEnum):
    """Why a replica or model could not serve; numbered as on the wire."""

    UNHEALTHY = 1
    DRAINING = 2
    CIRCUIT_OPEN = 3
    CONTEXT = 4
    CAPABILITY = 5
    NOT_ALLOWED = 6
    DEADLINE = 7
    FAILED_BEFORE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How utility is weighed."""

    name: str = "balanced"
    latency_weight_per_s: float = 0.0
    cost_weight_per_usd: float = 0.0
    explore_ratio: float = 0.02
    deadline_confidence: float = 0.9
    """Probability of being in time that a request must have to wait for a place at a model."""
    downgrade_ratio: float = 0.8
    """Share of the wanted plan's quality that another must have to stand in for want of time."""
    max_calls: int = 3
    balancer: str = "predicted_latency"
    plans: frozenset[str] = frozenset()
    """Kinds of plans that may be chosen; empty: all."""
    forecast: bool = True
    """Whether capacity is priced by what is forecast, too."""
    may_draw: bool = True
    """Whether a model may be asked for another answer than its likeliest one."""
    verifier: str = ""
    """What can tell good answers to the request from bad ones, without a reference."""
    promised: bool = False
    """Whether the request was refused before, and told that there is a place for it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a caller asks for, as far as a decision needs to know."""

    text: str
    """What is to be answered: the last message, or the prompt."""
    characters: int
    """Of the whole input; a conversation is longer than its last message."""
    max_tokens: int | None = None
    model: str = ""
    """The only model that may answer; empty: any."""
    allowed_models: frozenset[str] = frozenset()
    """Models that may take part; empty: all."""
    priority: Priority = Priority.STANDARD
    tenant: str = ""
    caller: str = ""
    """What its caller calls the request, each time it tries; empty: nothing."""
    deadline_s: float | None = None
    """Seconds that the caller still waits."""
    policy: str = ""
    latency_weight_per_s: float | None = None
    cost_weight_per_usd: float | None = None
    min_quality: float = 0.0
    task_hint: int | None = None
    """Index into `features.TASKS` that the caller takes this to be."""
    session: str = ""
    """Requests of one conversation; empty: none."""
    prefix: str = ""
    """Recognises requests that begin alike; empty: too short to matter."""
    explain: bool = False
    samples: int = 1
    """Answers that one model is to give."""
    elsewhere: bool = False
    """Whether the caller asks the replica itself, which makes a plan one call."""
    reviewable: bool = True
    """Whether another model can read the input: token ids belong to one vocabulary."""
    may_draw: bool = True
    """False where the caller asks for the likeliest answer."""
    logprobs: bool = False
    """Whether the caller wants log-probabilities."""
    verifier: str = ""
    """What can tell good answers from bad ones."""
    kept_prompt: str = ""
    """The whole input as JSON where the caller consents that it is kept, else empty."""
    failed: frozenset[str] = frozenset()
    """Replicas that failed for this very request."""


@dataclass(slots=True, kw_only=True, eq=False)
class Replicas:
    """Every replica as it is known now; arrays (R,) that nobody changes.

    It is made for every decision, and what is frozen takes three times as long to make.
    """

    models: tuple[str, ...]
    """Names of the M models."""
    names: tuple[str, ...]
    """Names of the R replicas."""
    model: Ints
    """Index into `models`."""
    healthy: Bools
    draining: Bools
    circuit_closed: Bools
    can_generate: Bools
    context_tokens: Floats
    """Longest prompt and answer together; infinite where not known yet."""
    loads: ReplicaLoads
    """What each replica has to do, as the latency model wants it."""
    last_turn: Floats
    """When this router last chose each, counted in requests; 0 where it never did."""
    peaks: Peaks
    """How long each lately took at most."""
    serving: Bools | None = None
    """Who is healthy, can generate, takes work and has a closed circuit, if that is known."""

    @property
    def peak_s(self) -> Floats:
        """The longest it lately took to answer, faded; 0 where nothing was seen."""
        return self.peaks.at(self.loads.now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What stands between a request and the replicas."""

    full: Bools
    """(R,) Replicas that take it only once somebody else is done."""
    wait_s: Floats
    """(M,) How long that is expected to take where all of a model's replicas are full."""
    promised: bool = False
    """Whether a place was promised to it when it was refused before."""


@dataclass(slots=True, kw_only=True)
class Candidates:
    """The models that can serve, each with its best replica; lists (N,).

    Nobody changes them: as `Replicas`, they are made for every decision.
    """

    models: tuple[str, ...]
    replicas: tuple[str, ...]
    quality: list[float]
    quality_stddev: list[float]
    ttft_p50_s: list[float]
    ttft_p90_s: list[float]
    total_p50_s: list[float]
    total_p90_s: list[float]
    cost_usd: list[float]
    output_tokens: list[float]
    report_age_s: list[float]
    capacity_price: list[float]
    """What a call takes from others, in units of quality."""
    spares: tuple[str, ...]
    """Each model's second best replica, "" where it has no other that can serve."""
    stall_ratio: float
    """Share of calls that stay silent for no reason that the latency model knows."""
    confidence: list[list[float]]
    """(N, Z) Equally likely confidences that each model's answer will have, ascending."""
    agreement: list[list[float]]
    """(N, N) Correlation of success; on the diagonal, of two answers of one model."""
    work_s: list[float] = field(default_factory=list)
    """Seconds of a slot that a call takes; empty where nobody asks. No decision reads it."""
    probe_ratio: list[float] = field(default_factory=list)
    """Share of such requests to spend on a model that fell; empty for none of all."""
    wait_s: list[float] = field(default_factory=list)
    """Part of the times above that the request would wait for a place; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A replica that could not serve, and why."""

    model: str
    replica: str
    reason: Reason
    detail: str
