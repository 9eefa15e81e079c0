"""Who decides in a simulation: the router's own code in simulated time, or a plain balancer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np

from router_svc.allocation import decided, device_of
from router_svc.core.ahead import Ahead
from router_svc.core.allocate import Allocator
from router_svc.core.decide import (
    DeadlineError,
    Decision,
    NoCandidateError,
    choice_of,
    decide,
    keeping,
    worth_promising,
)
from router_svc.core.features import TASKS, Features, lexical_profile
from router_svc.core.gate import Choice, Gate, nothing_in_the_way
from router_svc.core.plan import Single
from router_svc.core.predict import candidates
from router_svc.core.promises import Known
from router_svc.core.queue import Ticket
from router_svc.core.refusal import refused
from router_svc.core.types import Ask, Places, Policy, Priority
from router_svc.fleet import Fleet, Lease
from router_svc.learner import Learner
from router_svc.policies import Policies
from services.kit.config import FleetConfig
from zeta_client.load.blind import Blind
from zeta_client.load.ways import Way
from zeta_client.sim.server import Job

_TEXT: Final = "what is asked"
_PROFILED_TOKENS: Final = 32.0
"""Length that a profile expects of any answer; what models really do is learned."""


Ended: TypeAlias = Literal["well", "late", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a router is told of a request."""

    number: int
    kind: str
    priority: Priority
    tenant: str
    prompt_tokens: int
    due_s: float
    """When the answer is; infinite without a deadline."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not served, and when a retry is worth it."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Where a request went; *lease* and *features* are the router's own."""

    replica: int
    plan: str
    lease: Lease | None = None
    features: Features | None = None
    expected_tokens: float = 0.0


class Decider(Protocol):
    """Chooses replicas, by their number, and learns what becomes of requests."""

    def begin(self, question: Question, failed: frozenset[int]) -> Sent | Refused | None:
        """Choose, or say why not; None: it waits."""
        ...

    def settled(self) -> Iterator[tuple[int, Sent | Refused]]:
        """Say who waits no longer, by its number, and where it goes or why it does not."""
        ...

    def first(self, sent: Sent) -> None:
        """Note a first token."""
        ...

    def end(self, sent: Sent, job: Job, *, ended: Ended) -> None:
        """Note that a request has ended."""
        ...

    def healthy(self, replica: int, *, serving: bool) -> None:
        """Note that a replica came or went."""
        ...

    def reported(self, replica: int, requests: int, prompt_tokens: float, most: int) -> None:
        """Take in a report."""
        ...

    def look_ahead(self) -> Mapping[int, int]:
        """Foresee what comes, and return new slots of replicas; called every `forecast.STEP_S`."""
        ...


class Routed:
    """The router: its fleet, its learner, its decisions, in simulated time."""

    def __init__(
        self, config: FleetConfig, way: Way, clock: Callable[[], float], seed: int
    ) -> None:
        self._fleet = Fleet(config.models, config.router, clock)
        self._learner = Learner(config.models, config.router.half_life_outcomes)
        self._rng, self._clock = np.random.default_rng(seed), clock
        self._rotation = int(self._rng.integers(1 << 32))
        self._policy = self._policy_of(config, way)
        self._model_of = way.model_of or {}
        self._index = {name: i for i, name in enumerate(self._fleet.names)}
        self._ahead = Ahead(self._fleet.models, target=config.router.target_utilisation)
        self._allocators = [
            Allocator(
                device_of(config, self._fleet, each),
                every_s=each.change_every_s,
                patience_s=float(self._rng.uniform(20.0, 40.0)),
            )
            for each in config.devices
        ]
        self._features = {kind: _features(kind) for kind in TASKS}
        for name in self._fleet.names:
            self._fleet.health(name, serving=True)
        models, limit = len(self._fleet.models), config.router.max_queued
        self._gate: Gate[Decision | Refused] = Gate(
            self._fleet.model_of, models, limit, self._fleet.vacancy
        )
        self._kept = nothing_in_the_way(self._fleet.model_of, models)
        self._asked: dict[int, Question] = {}
        self._gone: list[tuple[int, Sent | Refused]] = []

    @staticmethod
    def _policy_of(config: FleetConfig, way: Way) -> Policy:
        policy = Policies(config.router.policies, config.router.default_policy).named(way.policy)
        # Ensembles are not simulated.
        single = replace(policy, plans=frozenset({"single"}))
        return replace(single, balancer=way.balancer) if way.balancer else single

    def begin(self, question: Question, failed: frozenset[int]) -> Sent | Refused | None:
        """Decide as the router does; requests that were lost go before all others."""
        features = replace(self._features[question.kind], prompt_tokens=question.prompt_tokens)
        ticket = Ticket(
            due_s=question.due_s,
            number=question.number,
            known=Known(key=question.number),
            priority=question.priority,
            tenant=question.tenant,
            tokens=question.prompt_tokens + features.expected_output_tokens,
        )

        come = iter([not failed and not self._gate.returns(ticket.known, self._clock())])

        def choose(places: Places | None) -> Choice[Decision | Refused]:
            return self._choose(question, features, failed, places, first=next(come, False))

        ticket = self._gate.promised(ticket, self._clock())
        choice = choose(None if failed else self._gate.places(ticket, self._clock()))
        self._asked[question.number] = question
        if choice.model < 0:
            return self._told(ticket, choice)
        refused = self._gate.push(ticket, choose, choice)
        if refused is not None and refused.number == ticket.number:
            return self._refused(refused, refused.model)
        if refused is not None:
            self._gone.append((refused.number, self._refused(refused, refused.model)))
        return None

    def settled(self) -> Iterator[tuple[int, Sent | Refused]]:
        """Let those go for whom there are places, and say for whom it is too late."""
        for ticket in self._gate.late(self._clock()):
            self._gone.append((ticket.number, self._refused(ticket, ticket.model)))
        while self._gone:
            yield self._gone.pop()
        for ticket, choice in self._gate.going(self._clock()):
            yield ticket.number, self._told(ticket, choice)

    def _told(self, ticket: Ticket, choice: Choice[Decision | Refused]) -> Sent | Refused:
        question = self._asked.pop(ticket.number)
        if not isinstance(choice.value, Refused):
            return self._sent(question, choice.value)
        if choice.wanted < 0:
            return choice.value
        return self._refused(ticket, choice.wanted, choice.service_s)

    def _refused(self, ticket: Ticket, model: int, service_s: float = 0.0) -> Refused:
        self._asked.pop(ticket.number, None)
        after_s = self._gate.retry_after_s(ticket, model, self._clock(), service_s=service_s)
        return Refused("OVERLOADED", after_s)

    def _choose(
        self,
        question: Question,
        features: Features,
        failed: frozenset[int],
        places: Places | None,
        *,
        first: bool,
    ) -> Choice[Decision | Refused]:
        ask = self._ask(question, failed)
        policy = keeping(self._policy, places)
        try:
            decision = self._decide(ask, features, places, policy)
        except NoCandidateError:
            return Choice(value=Refused("NO_REPLICA"))
        except DeadlineError as late:
            if first:
                self._ahead.refused(ask, late.candidates, self._policy, self._clock())
            found = refused(
                late,
                lambda: self._decide(ask, features, self._kept, worth_promising(self._policy)),
                self._fleet.models,
            )
            return Choice(
                value=Refused("PREDICTED_DEADLINE_MISS"),
                wanted=found.model,
                service_s=found.service_s,
            )
        if first:
            self._ahead.decided(decision, ask, self._clock())
        choice = choice_of(decision, self._fleet.models)
        return Choice(value=decision, model=choice.model, service_s=choice.service_s)

    def _ask(self, question: Question, failed: frozenset[int]) -> Ask:
        return Ask(
            text=_TEXT,
            characters=len(_TEXT),
            model=self._model_of.get(question.kind, ""),
            priority=question.priority,
            deadline_s=None if question.due_s == inf else question.due_s - self._clock(),
            failed=frozenset(self._fleet.names[i] for i in failed),
        )

    def _decide(
        self, ask: Ask, features: Features, places: Places | None, policy: Policy
    ) -> Decision:
        self._rotation += 1
        found = candidates(
            ask,
            features,
            self._fleet.replicas(),
            predictors=self._learner.predictors,
            prices=self._learner.prices,
            policy=policy,
            rotation=self._rotation,
            slot_prices=self._ahead.prices if policy.forecast else None,
            places=places,
        )
        # It is told how good each model is, and need not doubt it.
        found = replace(found, quality_stddev=[0.0] * len(found.models))
        return decide(ask, found, policy, self._rng, gains={})

    def _sent(self, question: Question, value: Decision) -> Sent:
        assert isinstance(value.plan, Single), "one call a plan"
        model = value.plan.model
        replica = value.replica_of(model)
        tokens = value.candidates.output_tokens[value.candidates.models.index(model)]
        lease = self._fleet.begin(
            replica,
            question.prompt_tokens,
            float(tokens),
            critical=question.priority is Priority.CRITICAL,
        )
        return Sent(
            replica=self._index[replica],
            plan=f"single({model})",
            lease=lease,
            features=replace(self._features[question.kind], prompt_tokens=question.prompt_tokens),
            expected_tokens=float(tokens),
        )

    def first(self, sent: Sent) -> None:
        """Note that the prompt is through."""
        assert sent.lease is not None
        self._fleet.first_token(sent.lease)

    def end(self, sent: Sent, job: Job, *, ended: Ended) -> None:
        """Learn the times and the length of what was answered."""
        assert sent.lease is not None
        assert sent.features is not None
        self._fleet.end(sent.lease)
        if ended == "lost":
            self._fleet.failed(sent.lease)
        if ended != "well":
            return
        self._fleet.succeeded(sent.lease)
        model, now_s = self._fleet.model_name(sent.lease.replica), self._clock()
        self._learner.predictors.length.learn(model, sent.features, job.output_tokens)
        self._learner.predictors.latency.learn(
            model,
            sent.lease.load,
            prompt_tokens=job.prompt_tokens,
            output_tokens=job.output_tokens,
            ttft_s=(job.first_s or now_s) - job.began_s,
            total_s=now_s - job.began_s,
            expected_tokens=sent.expected_tokens,
        )

    def healthy(self, replica: int, *, serving: bool) -> None:
        """Take in what a replica's health stream would say."""
        self._fleet.health(self._fleet.names[replica], serving=serving)

    def reported(self, replica: int, requests: int, prompt_tokens: float, most: int) -> None:
        """Take in what telemetry would say."""
        self._fleet.reported(
            self._fleet.names[replica],
            requests=float(requests),
            prompt_tokens=prompt_tokens,
            max_running=float(most),
            draining=False,
            dead=False,
            age_s=0.0,
        )

    def look_ahead(self) -> Mapping[int, int]:
        """Forecast, price and allocate as the router does."""
        if not (self._policy.forecast or self._allocators):
            return {}
        self._ahead.step(self._fleet.replicas(), self._clock())
        given: dict[int, int] = {}
        for allocator in self._allocators:
            found = decided(allocator, self._fleet.replicas(), self._ahead, self._clock())
            if found is not None:
                places = allocator.device.replicas.tolist()
                given |= dict(zip(places, found.slots.tolist(), strict=True))
        for place, slots in given.items():
            self._fleet.allocated(self._fleet.names[place], slots)
        return given


class Plain:
    """A plain load balancer, over all replicas or those of the model that the kind names."""

    def __init__(self, config: FleetConfig, way: Way, clock: Callable[[], float]) -> None:
        pairs = [(m, i) for m in config.models for i in range(len(m.replicas))]
        self._models = [model.name for model, _ in pairs]
        self._model_of = way.model_of or {}
        self._blind = Blind(self._models, [model.max_running for model, _ in pairs], way.balancer)
        self._clock = clock

    def begin(self, question: Question, failed: frozenset[int]) -> Sent | Refused:
        """Choose as the balancer does."""
        del failed
        i = self._blind.begin(self._clock(), self._model_of.get(question.kind, ""))
        return (
            Refused("NO_REPLICA") if i < 0 else Sent(replica=i, plan=f"single({self._models[i]})")
        )

    def settled(self) -> Iterator[tuple[int, Sent | Refused]]:
        """Nobody waits here."""
        return iter(())

    def first(self, sent: Sent) -> None:
        """Nothing to learn from a first token."""

    def end(self, sent: Sent, job: Job, *, ended: Ended) -> None:
        """Note how long it took."""
        del ended
        self._blind.end(sent.replica, job.began_s, self._clock())

    def healthy(self, replica: int, *, serving: bool) -> None:
        """Leave out who is down."""
        self._blind.able[replica] = serving

    def reported(self, replica: int, requests: int, prompt_tokens: float, most: int) -> None:
        """It reads no reports."""

    def look_ahead(self) -> Mapping[int, int]:
        """It foresees nothing."""
        return {}


def _features(kind: str) -> Features:
    tasks = np.array([float(task == kind) for task in TASKS])
    return replace(lexical_profile(_TEXT), tasks=tasks, expected_output_tokens=_PROFILED_TOKENS)
