"""The ways to have requests answered that a benchmark compares.

POLICY             the router with that policy
POLICY:BALANCER    the same, but for who chooses between replicas of one model
static:BALANCER    no router: the model that the kind of a task names, a balancer over its replicas
only:MODEL         one model, through the router
all:BALANCER       no router: one balancer over all replicas of all models, as if they were alike
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Self

from zeta.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
from zeta.router.v1 import router_service_pb2 as router_pb

from router_svc.core.balance import BALANCERS
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError
from zeta_client.async_client import AsyncClient
from zeta_client.load.blind import Blind
from zeta_client.load.send import Call
from zeta_client.load.shots import Shot

_KINDS = ("code", "reasoning", "general")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way, and what it is called."""

    name: str
    policy: str = ""
    balancer: str = ""
    model_of: Mapping[str, str] | None = None
    """Kind of task to the model that must answer; None: the router chooses."""
    direct: bool = False


def parsed(text: str, config: FleetConfig) -> Way:
    """Read a way. Raises ConfigError that lists what there is."""
    head, _, tail = text.partition(":")
    names = [m.name for m in config.models]
    if head == "only":
        if tail not in names:
            raise ConfigError(f"{text!r}: no model {tail!r}; there are: {', '.join(names)}")
        return Way(name=text, model_of=dict.fromkeys(_KINDS, tail))
    if (head in {"all", "static"} or tail) and (tail or "predicted_latency") not in BALANCERS:
        raise ConfigError(f"{text!r}: no balancer {tail!r}; there are: {', '.join(BALANCERS)}")
    if head == "static":
        return Way(name=text, balancer=tail or "round_robin", model_of=static(config), direct=True)
    if head == "all":
        return Way(name=text, balancer=tail or "round_robin", direct=True)
    if head not in config.router.policies:
        known = ", ".join([*config.router.policies, "static", "only:MODEL", "all"])
        raise ConfigError(f"{text!r}: no policy {head!r}; there are: {known}")
    return Way(name=text, policy=head, balancer=tail)


def static(config: FleetConfig) -> dict[str, str]:
    """Return the model of each kind of task that its configured prior speaks for most."""
    return {
        kind: max(config.models, key=lambda m: dict(m.priors).get(kind, 0.5)).name  # type: ignore[call-overload] # a literal
        for kind in _KINDS
    }


async def call(way: Way, config: FleetConfig, router: AsyncClient, opened: AsyncExitStack) -> Call:
    """Make *way* ready and return what sends a request that way. Raises ZetaError.

    A balancer takes a policy of its own, named `bench-…`, which the router keeps until it restarts.
    """
    if way.direct:
        pool = Pool(config, way)
        await opened.enter_async_context(pool)
        return pool.generate
    policy = await _policy(router, way)

    def generate(shot: Shot, left_s: float | None) -> AsyncIterator[GenerateResponse]:
        request = GenerateRequest()
        request.CopyFrom(shot.request)
        request.preference.policy = policy
        if way.model_of is not None:
            request.model = way.model_of[shot.kind]
        return router.generate(request, deadline_s=left_s)

    return generate


async def _policy(router: AsyncClient, way: Way) -> str:
    found = await router.policies()  # a router that is not there is found out now
    if not way.balancer:
        return way.policy
    base = way.policy or found.default_policy
    policy = next(p for p in found.policies if p.name == base)
    policy.name = f"bench-{base}-{way.balancer}"
    policy.balancer = router_pb.Balancer.Value(f"BALANCER_{way.balancer.upper()}")
    await router.update_policy(policy)
    return policy.name


class Pool:
    """The replicas of a fleet behind a plain balancer, called directly."""

    def __init__(self, config: FleetConfig, way: Way) -> None:
        pairs = [(m, i) for m in config.models for i in range(len(m.replicas))]
        self._clients = [
            AsyncClient(model.replicas[i].listen, settings=config.server) for model, i in pairs
        ]
        models = [model.name for model, _ in pairs]
        self._blind = Blind(models, [model.max_running for model, _ in pairs], way.balancer)
        self._model_of = way.model_of or {}

    async def __aenter__(self) -> Self:
        """Connect when first used."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every channel."""
        for client in self._clients:
            await client.close()

    async def generate(self, shot: Shot, left_s: float | None) -> AsyncIterator[GenerateResponse]:
        """Send *shot* to the replica that the balancer prefers."""
        began_s = perf_counter()
        i = self._blind.begin(began_s, self._model_of.get(shot.kind, ""))
        try:
            async for event in self._clients[i].generate(shot.request, deadline_s=left_s):
                yield event
        finally:
            self._blind.end(i, began_s, perf_counter())


def parse_all(texts: Sequence[str], config: FleetConfig) -> list[Way]:
    """Read several ways, each once. Raises ConfigError."""
    return [parsed(text, config) for text in dict.fromkeys(texts)]
