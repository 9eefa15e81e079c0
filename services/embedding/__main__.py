"""Start one embedding process: `python -m services.embedding --config FILE --replica N`."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from zeta.embedding.v1.embedding_service_pb2_grpc import add_EmbeddingServiceServicer_to_server

from services.embedding import encoder as onnx_encoder
from services.embedding.adapters import read
from services.embedding.batcher import Batcher
from services.embedding.encoder import OnnxEncoder
from services.embedding.heads import head_for
from services.embedding.profiler import Profiler
from services.embedding.servicer import NAME, EmbeddingServicer
from services.kit import config as kit_config
from services.kit import metrics
from services.kit.command import Process, start
from services.kit.config import Embedding, EmbeddingReplica, FleetConfig, Server
from services.kit.errors import ConfigError
from services.kit.server import Serving, serving

_WARM_UP = ("warm", "up " * 200)
"""One short text and one that fills the window."""


async def serve(config: FleetConfig, replica: EmbeddingReplica) -> None:
    """Load the encoder and serve it until the process is to end."""
    metrics.serve(replica.metrics)
    encoder = onnx_encoder.load(config.embedding, kit_config.state_dir(config) / "cache")
    async with serving_encoder(encoder, config.embedding, replica, config.server) as server:
        await server.stopped.wait()


@asynccontextmanager
async def serving_encoder(
    encoder: OnnxEncoder, settings: Embedding, replica: EmbeddingReplica, server: Server
) -> AsyncIterator[Serving]:
    """Warm up, then listen: a health check that answers can be believed."""
    with Batcher(encoder, max_batch=settings.max_batch) as batcher:
        servicer = await _warm_servicer(encoder, batcher, settings)
        services = {NAME: partial(add_EmbeddingServiceServicer_to_server, servicer)}
        async with serving(replica.listen, server, services, use=lambda: batcher.use) as running:
            await running.set_serving()
            yield running


async def _warm_servicer(
    encoder: OnnxEncoder, batcher: Batcher, settings: Embedding
) -> EmbeddingServicer:
    warm = await batcher.encode(_WARM_UP, urgent=True)
    dimensions = len(warm[0].vector)
    adapters = read(settings.adapters, encoder_sha256=encoder.sha256, dimensions=dimensions)
    classifier, head = head_for(encoder.sha256, dimensions)
    profiler = Profiler(batcher, head, cache_entries=settings.cache_entries)
    await profiler.profile(_WARM_UP)
    return EmbeddingServicer(
        profiler, encoder=encoder.name, classifier=classifier, adapters=adapters
    )


def main() -> None:
    """Serve until told to stop."""
    start("services.embedding", __doc__, process, of_replica=True)


def process(config: FleetConfig, its: argparse.Namespace) -> Process:
    """Name an embedding process and its work. Raises ConfigError for one that is not there."""
    replicas = config.embedding.replicas
    if not 0 <= its.replica < len(replicas):
        raise ConfigError(f"--replica {its.replica}: embedding.replicas has {len(replicas)}")
    return f"embedding-{its.replica}", serve(config, replicas[its.replica])


if __name__ == "__main__":
    main()
