"""Wire one model process together and run it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import structlog
from zeta.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from zeta.inference.v1 import inference_service_pb2, inference_service_pb2_grpc
from zeta.kserve.v2.grpc_inference_service_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from zeta.model.v1 import model_control_service_pb2, model_control_service_pb2_grpc

from services.kit import metrics
from services.kit.config import FleetConfig, model_named, replica_name
from services.kit.config import Model as ModelConfig
from services.kit.errors import ConfigError
from services.kit.kserve.servicer import KSERVE, KserveServicer
from services.kit.orca import Use
from services.kit.server import Add, Serving, serving
from services.kit.tickets import Keyring
from services.model import account, text
from services.model.backends import cuda
from services.model.backends.base import Backend
from services.model.backends.ort import OrtBackend
from services.model.backends.paced import Paced
from services.model.backends.trt import open as tensorrt
from services.model.backends.trt.device import Progress
from services.model.backends.trt.open import Source
from services.model.control import ControlServicer
from services.model.embedding import EmbeddingServicer
from services.model.engine.engine import Engine
from services.model.engine.types import Limits, Request
from services.model.gate import Gate
from services.model.graph import runnable
from services.model.graph.runnable import Runnable
from services.model.loop import DeviceLoop
from services.model.servicer import InferenceServicer, Model
from services.model.state import State

log = structlog.get_logger()

MIN_CONTEXT_TOKENS = 16
INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
EMBEDDING = embedding_service_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name
CONTROL = model_control_service_pb2.DESCRIPTOR.services_by_name["ModelControlService"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A model process that serves."""

    server: Serving
    device: DeviceLoop


async def serve(config: FleetConfig, name: str, index: int) -> None:
    """Serve replica *index* of model *name* until the process is told to stop.

    Raises ConfigError for a wrong configuration or checkpoint, RuntimeError when the device fails.
    """
    settings = model_named(config, name)
    if not 0 <= index < len(settings.replicas):
        raise ConfigError(
            f"model {name!r} has {len(settings.replicas)} replicas, no number {index}"
        )
    replica = settings.replicas[index]
    metrics.serve(replica.metrics)
    model, backend = load(settings, replica_name(name, index))
    await serve_model(config, settings, model, backend, replica.listen)


async def serve_model(
    config: FleetConfig, settings: ModelConfig, model: Model, backend: Backend, listen: str
) -> None:
    """Serve *model* on *backend* until told to stop; RuntimeError when the device fails."""
    async with running(config, settings, model, backend, listen) as process:
        await _first_of(process.server.stopped, process.device.crashed)
    if process.device.crashed.is_set():
        raise RuntimeError("the device thread failed; a supervisor should start this process again")


def load(
    settings: ModelConfig, replica: str, progress: Progress | None = None
) -> tuple[Model, Backend]:
    """Read a checkpoint and build its backend; *progress* is told of it. Raises ConfigError."""
    folder = Path(settings.dir)
    on_tensorrt = settings.runtime == "tensorrt"
    stored = runnable.load(folder, "trt" if on_tensorrt else "ort")
    context_tokens = settings.context_tokens or stored.shape.context_tokens
    if not MIN_CONTEXT_TOKENS <= context_tokens <= stored.shape.context_tokens:
        raise ConfigError(
            f"model {settings.name!r}: context_tokens = {context_tokens} must be from "
            f"{MIN_CONTEXT_TOKENS} to the checkpoint's {stored.shape.context_tokens}"
        )
    serves = _serves(settings, stored)
    words = text.load(folder, vocabulary=stored.shape.vocabulary)
    backend = _backend(settings, stored, context_tokens, progress)
    if settings.pace is not None:
        backend = Paced(backend, **msgspec.structs.asdict(settings.pace))
    model = Model(
        name=settings.name,
        replica=replica,
        text=words,
        vocabulary=stored.shape.vocabulary,
        context_tokens=context_tokens,
        default_max_tokens=settings.default_max_tokens,
        stop_ids=stored.stop_ids,
        temperature=stored.temperature,
        parameters=stored.parameters,
        precision=stored.precision,
        runtime="tensorrt" if on_tensorrt else f"onnxruntime-{settings.device}",
        encoder=stored.encoder if "embed" in serves else None,
        generates="generate" in serves,
    )
    return model, backend


def _backend(
    settings: ModelConfig, stored: Runnable, context_tokens: int, progress: Progress | None
) -> Backend:
    if settings.runtime == "tensorrt":
        source = Source(
            stored=stored, folder=Path(settings.dir), slots=settings.max_running,
            context_tokens=context_tokens, chunk_tokens=settings.prefill_chunk_tokens,
        )  # fmt: skip
        return tensorrt.load(source, settings.tensorrt, progress, gpu=settings.gpu)
    if settings.device == "cuda":
        return cuda.load(
            stored, slots=settings.max_running, context_tokens=context_tokens, gpu=settings.gpu,
            graphs=settings.cuda_graphs,
        )  # fmt: skip
    return OrtBackend(
        stored.graph, stored.shape, slots=settings.max_running,
        context_tokens=context_tokens, threads=settings.threads,
    )  # fmt: skip


def _serves(settings: ModelConfig, stored: Runnable) -> tuple[str, ...]:
    """Return what is to be served: as configured, else what the checkpoint was made for.

    Raises ConfigError for what it cannot do.
    """
    serves = settings.serves or (("embed",) if stored.encoder else ("generate",))
    where = f"model {settings.name!r}: serves = {list(serves)}"
    if settings.pace is not None and "embed" in serves:
        raise ConfigError(f"{where}: only a model that generates can have a pace")
    if "embed" in serves and stored.encoder is None:
        raise ConfigError(f"{where}, but {settings.dir} has no modules.json to say how")
    if "embed" in serves and (settings.runtime, settings.device) != ("onnxruntime", "cpu"):
        raise ConfigError(
            f"{where}: embeddings are computed by ONNX Runtime on processors alone; leave "
            "`runtime` and `device` out"
        )
    if "generate" in serves and stored.shape.headless:
        raise ConfigError(f"{where}, but {settings.dir} has no output projection")
    return serves


@asynccontextmanager
async def running(
    config: FleetConfig, settings: ModelConfig, model: Model, backend: Backend, listen: str
) -> AsyncIterator[Running]:
    """Serve *model* on *backend*; health says SERVING once it has made its first tokens."""
    engine = Engine(backend, limits(settings, backend))
    _warm(engine, model)
    device = DeviceLoop(
        engine, State(), max_waiting=settings.max_waiting, drain_s=config.server.drain_grace_s
    )
    _observe(model.name, device)
    try:
        keyring = Keyring(Path(config.tickets.keys)) if config.tickets.keys else None
        gate = Gate(model.replica, keyring, required=settings.requires_ticket)
        async with _serving(config, model, device, gate, listen) as server:
            await server.set_serving()
            log.info("serving", model=model.name, replica=model.replica)
            yield Running(server=server, device=device)
    finally:
        device.close()


def limits(settings: ModelConfig, backend: Backend) -> Limits:
    """Return the most that *backend* holds, and how prompts are cut."""
    return Limits(
        max_running=backend.slots,
        kv_tokens=backend.slots * backend.context_tokens,
        chunk_tokens=settings.prefill_chunk_tokens,
    )


@asynccontextmanager
async def _serving(
    config: FleetConfig, model: Model, device: DeviceLoop, gate: Gate, listen: str
) -> AsyncIterator[Serving]:
    async def stop_serving() -> None:
        names = ("", *(name for name in services if name != CONTROL))
        await server.set_serving(serving=False, names=names)

    inference = InferenceServicer(model, device, gate)
    control = ControlServicer(model, device, stop_serving=stop_serving)
    kserve = KserveServicer(inference, lambda _: not device.draining)
    services: dict[str, Add] = {
        INFERENCE: partial(
            inference_service_pb2_grpc.add_InferenceServiceServicer_to_server, inference
        ),
        CONTROL: partial(
            model_control_service_pb2_grpc.add_ModelControlServiceServicer_to_server, control
        ),
    }
    if model.generates:
        services[KSERVE] = partial(add_GRPCInferenceServiceServicer_to_server, kserve)
    if model.encoder is not None:
        embedding = EmbeddingServicer(model, model.encoder, device, gate)
        services[EMBEDDING] = partial(
            embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server, embedding
        )
    use = partial(_use, device)
    async with serving(listen, config.server, services, use=use) as server:
        yield server


def _use(device: DeviceLoop) -> Use:
    held, limits = device.occupancy, device.limits
    return Use(
        slots=limits.max_running,
        shares={"kv_cache": min(held.kv_used_tokens / limits.kv_tokens, 1.0)},
        figures={"running": float(held.running), "queue_depth": float(len(device.waiting()))},
    )


def _warm(engine: Engine, model: Model) -> None:
    """Run the first, slow steps before anybody waits for them."""
    tokens = np.zeros(2, np.int64)
    if model.generates:
        engine.add(Request(id=0, tokens=tokens, max_tokens=3))
    if model.encoder is not None:
        engine.add(Request(id=1, tokens=tokens, pool=model.encoder.pool))
    while not engine.idle:
        engine.step()


def _observe(model: str, device: DeviceLoop) -> None:
    account.RUNNING.labels(model).set_function(lambda: device.occupancy.running)
    account.WAITING.labels(model).set_function(lambda: len(device.waiting()))
    account.CACHED.labels(model)  # so that they are there before anything is counted
    device.on_preempted = account.PREEMPTIONS.labels(model).inc
    account.KV_TOKENS.labels(model).set_function(lambda: device.occupancy.kv_used_tokens)


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()
