"""What is known of every replica, from every source; no I/O.

Whether a replica serves comes from its own health stream. How busy it is comes from telemetry's
reports, carried on by our own requests in flight; without telemetry those alone have to do. A
circuit breaker keeps replicas that fail out for a while, and so are outliers among their peers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from router_svc import metrics
from router_svc.core.breaker import Breaker
from router_svc.core.filters import serving
from router_svc.core.gate import Vacancy
from router_svc.core.load import Load
from router_svc.core.loads import ReplicaLoads
from router_svc.core.outliers import Outliers, Verdict
from router_svc.core.recent import Recent
from router_svc.core.types import Bools, Priority, Replicas
from services.kit.config import Model, Router, replica_name

log = structlog.get_logger()

_FIRST_GUESS_S: Final = 0.5
"""Assumed length of a call before any has ended."""
_LEARNED: Final = 0.05
"""How far one call moves what is expected of the next."""
_AGENT, _PROBE = 0, 1
_SILENT_S: Final = 2.0
"""Without a report, or a word in a call, for so long a replica is asked whether it answers."""
_HUNG_S: Final = 1.0
"""Silence after which the calls of a replica that does not answer are given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a model says it can do."""

    context_tokens: int
    default_max_tokens: int
    parameters: int = 0
    precision: str = ""
    runtime: str = ""
    capabilities: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """One request in flight on one replica."""

    index: int
    replica: str
    load: ReplicaLoads
    """The replica's load when the request went there, without the request itself."""
    prompt_tokens: float
    output_tokens: float
    began_s: float
    requests: int = 1
    """So many answers are being made of one prompt."""
    critical: bool = False
    fed: bool = False
    heard_s: float = 0.0
    """When the last piece of the answer came."""
    abort: Callable[[], object] = lambda: None
    """Ends the call."""
    lost: bool = False
    """True once the call was ended because the replica hangs."""


class Fleet:
    """The replicas. Mutable, owned by the event loop; *clock* is monotonic seconds."""

    def __init__(
        self, models: Sequence[Model], settings: Router, clock: Callable[[], float]
    ) -> None:
        pairs = [(m, r) for m, model in enumerate(models) for r in range(len(model.replicas))]
        self.models = tuple(m.name for m in models)
        self.names = tuple(replica_name(models[m].name, r) for m, r in pairs)
        self.addresses = tuple(models[m].replicas[r].listen for m, r in pairs)
        self.model_of = np.array([m for m, _ in pairs], dtype=np.intp)
        self.infos: dict[str, Info] = {}
        """What is known of each model, by its name."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a replica's health changes."""
        self.ask: Callable[[str], Awaitable[None]] = _nobody_asks
        """Finds out whether a replica still answers, and tells `probed`."""
        self.freed: Callable[[], None] = lambda: None
        """Called when a replica may have a place that it had not."""
        self._news: asyncio.Future[None] | None = None
        self._index = {name: i for i, name in enumerate(self.names)}
        self._clock = clock
        self._breakers = [
            Breaker(failures=settings.breaker_failures, open_s=settings.breaker_open_s)
            for _ in pairs
        ]
        self._load = Load(self.model_of, [models[m].max_running for m, _ in pairs])
        self._recent = Recent(len(pairs))
        self._outliers = Outliers(self.model_of, settings.outlier_ratio)
        self._call_s = np.full(len(models), _FIRST_GUESS_S)
        """(M,) How long a call lately took, its wait at the replica included."""
        self._healthy = np.zeros(len(pairs), dtype=np.bool_)
        self._dead = np.zeros(len(pairs), dtype=np.bool_)
        """What does not answer, whatever its connection says: a process that hangs."""
        self._told = np.zeros((2, len(pairs)), dtype=np.bool_)
        """Who says so: its agent, or a probe of our own."""
        self._dead_since_s = np.full(len(pairs), np.inf)
        self._leases: list[set[Lease]] = [set() for _ in pairs]
        """Requests in flight, by replica."""
        self._draining = np.zeros(len(pairs), dtype=np.bool_)
        self._generates = np.ones(len(pairs), dtype=np.bool_)
        self._embeds = np.zeros(len(pairs), dtype=np.bool_)
        self._context = np.array(
            [float(models[m].context_tokens) or np.inf for m, _ in pairs], dtype=np.float64
        )
        self._tripped: set[int] = set()
        """Replicas whose breaker is not closed: usually none, which keeps decisions cheap."""
        self._standing: tuple[Bools, Bools, Bools] | None = None
        """Who is healthy, whose circuit is closed and who serves, until any of it changes."""
        for name in self.names:
            metrics.BREAKER_OPEN.labels(name).set(0)

    def replicas(self) -> Replicas:
        """Return the fleet as it is known now."""
        now_s = self._clock()
        healthy, closed, able = self._stand(now_s)
        return Replicas(
            models=self.models,
            names=self.names,
            model=self.model_of,
            healthy=healthy,
            draining=self._draining,
            circuit_closed=closed,
            can_generate=self._generates,
            context_tokens=self._context,
            loads=self._load.loads(now_s),
            last_turn=self._recent.last_turn,
            peaks=self._recent.peaks,
            serving=able,
        )

    def _stand(self, now_s: float) -> tuple[Bools, Bools, Bools]:
        """Return who is healthy, whose circuit is closed, and who serves; (R,) each."""
        timed = bool(self._tripped) or now_s < self._outliers.until_s
        if self._standing is not None and not timed:
            return self._standing
        healthy, closed = self._healthy & ~self._dead, ~self._outliers.out(now_s)
        for i in self._tripped:
            closed[i] &= self._breakers[i].allows(now_s)
        able = serving(self._generates, healthy, self._draining, closed)
        self._standing = None if timed else (healthy, closed, able)
        return healthy, closed, able

    def crowded(self, priority: Priority) -> bool:
        """Whether some replica has no place for a request of class *priority*."""
        return bool(np.count_nonzero(self._load.full(priority, self._clock())))

    def vacancy(self, priority: Priority) -> Vacancy:
        """Return where a request of class *priority* finds a place now."""
        able = self._healthy & ~self._dead & ~self._draining & self._generates
        for i in self._tripped:
            able[i] &= self._breakers[i].allows(self._clock())
        full, count = self._load.full(priority, self._clock()), len(self.models)
        serving = np.bincount(self.model_of, able, count)
        # Where nobody serves, who waits, waits for all of them to be back.
        back = able | (serving == 0.0)[self.model_of]
        # A call's time has its wait at the replica in it, for which there are places besides slots.
        places = np.bincount(self.model_of, back * self._load.places(), count)
        return Vacancy(
            full=full,
            room=(serving == 0.0) | (np.bincount(self.model_of, able & ~full, count) > 0.0),
            pace_s=self._call_s / np.maximum(places, 1.0),
            call_s=self._call_s,
        )

    def next_change(self) -> asyncio.Future[None]:
        """Return what is done once a replica's health changes: the same for all who wait for it.

        Whoever waits looks again now and then, so that one of each look's own would pile up. Not to
        be cancelled: `asyncio.wait` for it.
        """
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    def serves(self) -> bool:
        """Whether any replica that generates is healthy."""
        return bool((self._healthy & ~self._dead & self._generates).any())

    def answers(self, model: str) -> bool:
        """Whether some replica of *model*, or of any where it is empty, takes requests."""
        return bool(self.healthy_replicas(model)) if model else self.serves()

    def able(self, replica: str) -> bool:
        """Whether *replica* serves and takes new work, whatever its circuit says."""
        i = self._index[replica]
        return bool(self._healthy[i] and not self._dead[i] and not self._draining[i])

    def trusted(self, replica: str) -> bool:
        """Whether *replica* is able, and neither its circuit nor its peers speak against it."""
        i = self._index[replica]
        out = i in self._tripped or bool(self._outliers.out(self._clock())[i])
        return self.able(replica) and not out

    def index(self, replica: str) -> int:
        """Return the number of *replica* in every array."""
        return self._index[replica]

    def model_name(self, replica: str) -> str:
        """Name the model of *replica*."""
        return self.models[int(self.model_of[self._index[replica]])]

    def healthy_replicas(self, model: str) -> list[str]:
        """Replicas of *model* that are healthy and take work, the least busy first."""
        requests = self._load.requests
        able = self._healthy & ~self._dead & ~self._draining
        found = [i for i in np.flatnonzero(able).tolist() if self.models[self.model_of[i]] == model]
        return [self.names[i] for i in sorted(found, key=lambda i: float(requests[i]))]

    def encoding_replicas(self, model: str) -> list[str]:
        """Replicas of *model* that can embed now, the least busy first."""
        replicas = self.replicas()
        able = replicas.healthy & ~replicas.draining & replicas.circuit_closed & self._embeds
        busy = replicas.loads.requests
        mine = np.flatnonzero(able & (self.model_of == self.models.index(model)))
        return [self.names[i] for i in mine[np.argsort(busy[mine], kind="stable")].tolist()]

    def may_embed(self, model: str, *, known: bool = False) -> bool:
        """Whether *model* embeds, as it said; a silent one may, unless that is to be *known*."""
        if model not in self.infos:
            return not known
        return bool(self._embeds[self.model_of == self.models.index(model)].any())

    def first_generator(self) -> str:
        """Name the first model that generates, as far as is known."""
        able = {self.models[m] for m in self.model_of[self._generates].tolist()}
        return next((model for model in self.models if model in able), self.models[0])

    def begin(
        self,
        replica: str,
        prompt_tokens: float,
        output_tokens: float,
        *,
        requests: int = 1,
        critical: bool = False,
    ) -> Lease:
        """Note that a request goes to *replica*, where it is so many *requests*."""
        i, now_s = self._index[replica], self._clock()
        load = self._load.row(i, now_s)
        self._load.began(i, prompt_tokens, output_tokens, requests, now_s=now_s, critical=critical)
        self._recent.began(i)
        self._breakers[i].began(now_s)
        lease = Lease(
            index=i,
            replica=replica,
            load=load,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            began_s=now_s,
            requests=requests,
            critical=critical,
            heard_s=now_s,
        )
        self._leases[i].add(lease)
        return lease

    def hold(self, replicas: Sequence[str], *, critical: bool = False) -> None:
        """Note that a request is about to go to *replicas*, as often as each is named.

        `release` takes it back, just before the request begins there or where it does not.
        """
        for replica in replicas:
            i = self._index[replica]
            self._load.began(i, 0.0, 0.0, now_s=self._clock(), critical=critical)

    def release(self, replicas: Sequence[str], *, critical: bool = False) -> None:
        """Take back what was held."""
        for replica in replicas:
            i = self._index[replica]
            self._load.ended(i, 0.0, now_s=self._clock(), critical=critical)

    def first_token(self, lease: Lease) -> None:
        """Note that the request's prompt is through."""
        if not lease.fed:
            lease.fed = True
            self._load.fed(lease.index, lease.prompt_tokens, now_s=self._clock())

    def end(self, lease: Lease) -> None:
        """Note that the request has ended, in whatever way."""
        if lease.fed:
            model = self.model_of[lease.index]
            took_s = self._clock() - lease.began_s
            self._call_s[model] += _LEARNED * (took_s - self._call_s[model])
        self.first_token(lease)
        self._leases[lease.index].discard(lease)
        self._load.ended(
            lease.index,
            lease.output_tokens,
            lease.requests,
            now_s=self._clock(),
            critical=lease.critical,
        )
        self.freed()

    def succeeded(self, lease: Lease, slowness: float = 0.0) -> None:
        """Note that the replica answered, in *slowness* times what was predicted; 0: unknown."""
        now_s = self._clock()
        self._judge(lease, self._outliers.answered(lease.index, slowness, now_s))
        self._recent.took(lease.index, now_s - lease.began_s, now_s)
        self._breakers[lease.index].succeeded()
        if lease.index in self._tripped:
            self._tripped.discard(lease.index)
            metrics.BREAKER_OPEN.labels(lease.replica).set(0)
            log.info("circuit closed", replica=lease.replica)

    def failed(self, lease: Lease) -> None:
        """Note that the replica failed, through no fault of the request."""
        breaker, now_s = self._breakers[lease.index], self._clock()
        self._judge(lease, self._outliers.failed(lease.index, now_s))
        breaker.failed(now_s)
        if breaker.opened_at_s is not None and lease.index not in self._tripped:
            self._tripped.add(lease.index)
            metrics.BREAKER_OPEN.labels(lease.replica).set(1)
            log.warning("circuit open", replica=lease.replica, failures=breaker.in_a_row)

    def health(self, replica: str, *, serving: bool) -> None:
        """Take in what the replica's own health stream says; a lost stream is not serving."""
        i = self._index[replica]
        if self._healthy[i] == serving:
            return
        self._healthy[i] = serving
        self._draining[i] = self._dead[i] = False
        self._standing = None
        self._told[:, i], self._dead_since_s[i] = False, np.inf
        if serving:
            # It restarted, or became reachable: its past failures say nothing any more.
            self._breakers[i].succeeded()
            self._outliers.restarted(i)
            self._tripped.discard(i)
            metrics.BREAKER_OPEN.labels(replica).set(0)
        else:
            self._load.forget(i)
        metrics.HEALTHY.labels(replica).set(int(serving))
        log.info("replica", replica=replica, serving=serving)
        self._tell()

    def reported(
        self,
        replica: str,
        *,
        requests: float,
        prompt_tokens: float,
        max_running: float,
        draining: bool,
        dead: bool,
        age_s: float,
        held_s: float = np.inf,
    ) -> None:
        """Take in a telemetry report; of a replica that is not configured, ignore it."""
        if (i := self._index.get(replica)) is None:
            return
        self._drains(i, draining=draining)
        self._hangs(_AGENT, i, hangs=dead)
        self._load.reported(
            i,
            requests=requests,
            prompt_tokens=prompt_tokens,
            max_running=max_running,
            read_at_s=self._clock() - age_s,
            held_s=held_s,
        )
        self.freed()

    def told(self, *, anew: bool) -> None:
        """Note a sign of life of telemetry: reports that hold, still hold; not *anew*."""
        if anew:
            self._load.untold()
        self._load.told(self._clock())

    def suspects(self) -> list[str]:
        """Name healthy replicas that may hang: nobody reports on them, or a call is silent.

        An agent may be gone with its machine, and a link may be dead that looks alive.
        """
        now_s = self._clock()
        silent = (self._load.ages_s(now_s) > _SILENT_S) | self._told[_PROBE]
        for i, leases in enumerate(self._leases):
            silent[i] |= any(now_s - lease.heard_s > _SILENT_S for lease in leases)
        return [self.names[i] for i in np.flatnonzero(silent & self._healthy).tolist()]

    def drains(self, replica: str) -> None:
        """Note that the replica refused a request because it drains."""
        self._drains(self._index[replica], draining=True)

    def probed(self, replica: str, *, answers: bool) -> None:
        """Take in whether a suspect answers when it is asked how it is."""
        i = self._index[replica]
        if self._healthy[i]:
            self._hangs(_PROBE, i, hangs=not answers)

    def _judge(self, lease: Lease, verdict: Verdict | None) -> None:
        if verdict is not None:
            metrics.LEFT_OUT.labels(lease.replica).inc()
            log.warning(
                "left out", replica=lease.replica, why=verdict.why, seconds=round(verdict.out_s, 1)
            )

    def _drains(self, i: int, *, draining: bool) -> None:
        if self._draining[i] != draining:
            self._draining[i], self._standing = draining, None

    def _hangs(self, who: int, i: int, *, hangs: bool) -> None:
        self._told[who, i] = hangs
        dead = bool(self._told[:, i].any())
        if self._dead[i] != dead:
            self._dead[i], self._standing = dead, None
            self._dead_since_s[i] = self._clock() if dead else np.inf
            log.info("replica", replica=self.names[i], hangs=dead)
            self._tell()
        if dead:
            self._give_up(i)

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set_result(None)
        self.changed()
        self.freed()

    def _give_up(self, i: int) -> None:
        """End the calls of a replica that has hung for a while and sends nothing any more.

        A busy machine makes a process late now and then; its calls go on.
        """
        before_s = self._clock() - _HUNG_S
        if self._dead_since_s[i] > before_s:
            return
        for lease in [lease for lease in self._leases[i] if lease.heard_s <= before_s]:
            lease.lost = True
            lease.abort()

    def allocated(self, replica: str, max_running: int) -> None:
        """Note how many requests *replica* runs at once from now on."""
        self._load.allocated(self._index[replica], max_running)

    def reports_lost(self) -> None:
        """Note that telemetry is gone: what it last said against a replica may no longer hold."""
        self._draining[:], self._standing = False, None
        for i in np.flatnonzero(self._told[_AGENT]).tolist():
            self._hangs(_AGENT, i, hangs=False)
        self._load.untold()
        self._tell()

    def knows(self, model: str, info: Info, *, generates: bool, embeds: bool = False) -> None:
        """Take in what *model* says about itself."""
        self.infos[model] = info
        mine = self.model_of == self.models.index(model)
        self._generates[mine], self._embeds[mine] = generates, embeds
        self._standing = None
        if info.context_tokens:
            self._context[mine] = info.context_tokens


async def _nobody_asks(replica: str) -> None:
    """Believe what is known."""
    del replica
