"""Wire a router together and run it. Waits for nobody: other processes may come and go."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import structlog
from zeta.embedding.v1 import embedding_service_pb2_grpc as embedding_grpc
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.kserve.v2 import grpc_inference_service_pb2_grpc as kserve_grpc
from zeta.router.v1 import router_service_pb2 as router_pb
from zeta.router.v1 import router_service_pb2_grpc as router_grpc

from router_svc import chores, client, compiled, warm
from router_svc.allocation import Allocations
from router_svc.client import Embedders, Upstreams
from router_svc.core.breaker import Breaker, RetryBudget
from router_svc.embedding import EmbedDispatch
from router_svc.fleet import Fleet
from router_svc.history import History
from router_svc.journal import Journal
from router_svc.learner import Learner, priors_of
from router_svc.policies import Policies
from router_svc.profiler import Profiler
from router_svc.relay import Siblings, relayed
from router_svc.router import ZetaDynamicRouter
from router_svc.servicer import EmbeddingServicer, InferenceServicer, RouterServicer
from router_svc.tickets import Tickets
from router_svc.workers import Worker
from services.kit import metrics
from services.kit.aio import cancelled
from services.kit.config import FleetConfig, state_dir
from services.kit.errors import ConfigError
from services.kit.kserve.servicer import KSERVE, KserveServicer
from services.kit.server import Add, Serving, serving
from services.kit.tickets import Keyring

log = structlog.get_logger()

ROUTER: Final = "zeta.router.v1.RouterService"
_PATIENCE_S: Final = 0.5
"""Another worker's decision is in the journal by then."""
_ALONE: Final = Worker()


async def serve(config: FleetConfig, worker: Worker) -> None:
    """Serve until told to stop, alone or as one of several workers."""
    config = msgspec.structs.replace(config, router=worker.share(config.router))
    metrics.serve(config.router.metrics)
    async with running(config, worker=worker) as server:
        log.info("decides", compiled=compiled.used())
        collect_seldom()
        await server.stopped.wait()


def collect_seldom() -> None:
    """Look for reference cycles less often: calls make few, and a full look takes milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@asynccontextmanager
async def running(
    config: FleetConfig, *, seed: int | None = None, worker: Worker = _ALONE
) -> AsyncGenerator[Serving, None]:
    """Run a router; leaving the context drains it and saves what it learned."""
    keyring = Keyring(Path(config.tickets.keys)) if config.tickets.keys else None
    journal = Journal(state_dir(config) / config.router.journal)
    fleet = Fleet(config.models, config.router, time.monotonic)
    learner = Learner(config.models, config.router.half_life_outcomes)
    upstreams, embedders = Upstreams(config, fleet, keyring), Embedders(config)
    profiler = _profiler(config, embedders)
    router = ZetaDynamicRouter(
        config.router,
        fleet=fleet,
        learner=learner,
        profiler=profiler,
        policies=Policies(config.router.policies, config.router.default_policy),
        journal=journal,
        rng=np.random.default_rng(seed),
        new_id=worker.new_id,
    )
    router.verdicts.patience_s = _PATIENCE_S if worker.count > 1 else 0.0
    siblings = Siblings(worker, config.server)
    history = History(journal, router.ahead.seasons, fleet.models)
    try:
        await router.verdicts.restore(_beginning(config, learner))
        await history.restore()
    except ConfigError:
        await journal.close()
        raise
    embed = _embed_dispatch(config, router, upstreams, embedders)
    allocations = Allocations(config, fleet, router.ahead, upstreams.allocate)
    tickets = Tickets(router, keyring, config.tickets.life_s) if keyring else None
    inference = InferenceServicer(router, upstreams, config, siblings)
    services = {
        **_services(router, inference, embedders, embed),
        ROUTER: partial(
            router_grpc.add_RouterServiceServicer_to_server, RouterServicer(router, tickets)
        )
        if worker.first
        else relayed(router_pb.DESCRIPTOR.services_by_name["RouterService"], siblings.channel(0)),
    }
    # For as long as answers are under way: longer than what else is done beside them.
    lines = _started({f"line {name}": partial(upstreams.carry, name) for name in fleet.names})
    try:
        async with serving(
            config.router.listen,
            config.server,
            services,
            use=router.admission.use,
            siblings_at=worker.address(worker.number),
        ) as server:
            works: dict[str, Callable[[], Awaitable[None]]] = {
                **{f"health {name}": partial(upstreams.watch, name) for name in fleet.names},
                **{f"embedder {i}": partial(embedders.watch, i) for i in range(embedders.count())},
                "probing": upstreams.probe,
                "telemetry": partial(client.watch_telemetry, config, fleet, learner),
                "own health": partial(_tell_health, fleet, embedders, embed, server),
                **(
                    {
                        **chores.of_the_first(config, router, journal, history),
                        "allocating": partial(allocations.run),
                    }
                    if worker.first
                    else {"following": partial(chores.follow, router, siblings)}
                ),
                "looking ahead": partial(chores.look_ahead, router),
                **({"tickets": partial(chores.expire, tickets)} if tickets else {}),
            }
            tasks = _started(works)
            try:
                yield server
            finally:
                for task in tasks:
                    await cancelled(task)
    finally:
        for task in lines:
            await cancelled(task)
        await profiler.close()
        await upstreams.close()
        await embedders.close()
        await siblings.close()
        if worker.first:
            router.learn()
            await router.verdicts.save()
            await history.save()
        await journal.close()


def _started(works: Mapping[str, Callable[[], Awaitable[None]]]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(chores.kept_up(*work)) for work in works.items()]


def _beginning(config: FleetConfig, learner: Learner) -> Callable[[], None]:
    """Return what makes the beginning of a router that has learned nothing yet."""
    if not config.router.warm_start:
        return lambda: None
    return partial(warm.start, learner, Path(config.router.warm_start), priors_of(config.models))


def _profiler(config: FleetConfig, embedders: Embedders) -> Profiler:
    settings = config.router
    return Profiler(
        embedders.features,
        serves=embedders.serves,
        timeout_s=settings.profile_timeout_s,
        cache_entries=settings.profile_cache_entries,
        breaker=Breaker(failures=settings.breaker_failures, open_s=settings.breaker_open_s),
        clock=time.monotonic,
    )


def _embed_dispatch(
    config: FleetConfig, router: ZetaDynamicRouter, upstreams: Upstreams, embedders: Embedders
) -> EmbedDispatch:
    settings = config.router
    return EmbedDispatch(
        router.fleet,
        upstreams,
        embedders,
        default=settings.embedding_model,
        admit=router.admission.slot,
        budget=RetryBudget(ratio=settings.retry_ratio, burst=float(settings.max_in_flight)),
        clock=time.monotonic,
    )


def _services(
    router: ZetaDynamicRouter,
    inference: InferenceServicer,
    embedders: Embedders,
    embed: EmbedDispatch,
) -> Mapping[str, Add]:
    return {
        KSERVE: partial(
            kserve_grpc.add_GRPCInferenceServiceServicer_to_server,
            KserveServicer(inference, router.fleet.answers),
        ),
        client.INFERENCE: partial(inference_grpc.add_InferenceServiceServicer_to_server, inference),
        client.EMBEDDING: partial(
            embedding_grpc.add_EmbeddingServiceServicer_to_server,
            EmbeddingServicer(router, embedders, embed),
        ),
    }


async def _tell_health(
    fleet: Fleet, embedders: Embedders, embed: EmbedDispatch, server: Serving
) -> None:
    """Say SERVING while somebody stands behind each service."""
    news = asyncio.Event()
    fleet.changed = embedders.changed = news.set
    while True:
        news.clear()
        await server.set_serving(
            serving=fleet.serves(), names=("", client.INFERENCE, ROUTER, KSERVE)
        )
        await server.set_serving(serving=embed.serves(), names=(client.EMBEDDING,))
        await news.wait()
