"""Put a model on a card: fit it in, find its plan or build one, load it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import onnx
import structlog
from onnx import helper

from services.kit.config import TensorRT
from services.kit.errors import ConfigError
from services.model.backends.trt import memory, plans
from services.model.backends.trt.backend import TensorRTBackend
from services.model.backends.trt.capacity import Capacity, profiles
from services.model.backends.trt.device import Maker, Progress, Task
from services.model.backends.trt.memory import Needs
from services.model.graph import candidates, decoder, dialects, manifest
from services.model.graph.checkpoint import Shape
from services.model.graph.runnable import Runnable

log = structlog.get_logger()

_TOLD_EVERY_S = 10.0
_LEAST_CAPABILITY = {"bf16": (8, 0), "fp8": (8, 9)}
"""Compute capability without which a type is not computed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model, in dialect "trt"."""

    stored: Runnable
    folder: Path
    slots: int
    context_tokens: int
    chunk_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The plan to find or build."""

    key: plans.Key
    model: onnx.ModelProto
    weights: Path | None
    """Where they are, unless in the graph."""
    capacity: Capacity


def load(
    source: Source, settings: TensorRT, progress: Progress | None = None, *, gpu: int = 0
) -> TensorRTBackend:
    """Put a model on card *gpu*. Raises ConfigError that says what is missing."""
    try:
        from services.model.backends.trt.maker import (  # noqa: PLC0415 - needs TensorRT
            TensorRTMaker,
        )
    except ImportError as error:
        raise ConfigError(
            f'runtime = "tensorrt" needs TensorRT 11 and cuda-bindings ({error}): install them '
            "with `pip install 'zeta[tensorrt]'`, where NVIDIA's package index can be reached, or "
            'use one of NVIDIA\'s TensorRT images; or set runtime = "onnxruntime"'
        ) from error
    return place(TensorRTMaker(gpu), source, settings, progress or Told())


def place(maker: Maker, source: Source, settings: TensorRT, progress: Progress) -> TensorRTBackend:
    """Put a model on *maker*'s card. Raises ConfigError that says what is too much."""
    card, stored = maker.about(), source.stored
    _refuse_old(card, stored.precision)
    model, capacity = prepared(
        stored.graph,
        stored.shape,
        slots=source.slots,
        context_tokens=source.context_tokens,
        chunk_tokens=source.chunk_tokens,
    )
    needs = Needs(
        weights_bytes=decoder.written_bytes(stored.shape, stored.precision, "trt"),
        layout=capacity.layout,
        context_tokens=source.context_tokens,
        other_bytes=sum(capacity.parts().values()),
    )
    free_bytes = maker.free_bytes()
    wanted = _Wanted(
        key=_key(source, capacity, model, card, streaming=needs.streams(free_bytes)),
        model=model,
        weights=source.folder if isinstance(stored.graph, Path) else None,
        capacity=capacity,
    )
    content = _plan(maker, wanted, Path(settings.plan_dir), progress, build=settings.build)
    return _loaded(maker, content, needs, capacity, free_bytes)


def _loaded(
    maker: Maker, content: memoryview, needs: Needs, capacity: Capacity, free_bytes: int
) -> TensorRTBackend:
    try:
        loaded = maker.load(content, needs.weights_room(free_bytes))
        if loaded.away_bytes:
            log.warning("weights stream over the bus at every step", bytes=loaded.away_bytes)
        return TensorRTBackend(maker.device, capacity, loaded.prefill, loaded.decode)
    except MemoryError as error:
        taken = min(needs.weights_bytes, needs.weights_room(free_bytes)) + needs.other_bytes
        # All but a tenth of it: what TensorRT itself takes is known only when it has it.
        left = int(0.9 * (free_bytes - taken))
        raise ConfigError(f"{needs.too_much(free_bytes, left)} ({error})") from error


def prepared(
    graph: onnx.ModelProto | Path,
    shape: Shape,
    *,
    slots: int,
    context_tokens: int,
    chunk_tokens: int,
) -> tuple[onnx.ModelProto, Capacity]:
    """Return the graph as it is built, weights beside it not read, and how much it runs."""
    model = onnx.load(graph, load_external_data=False) if isinstance(graph, Path) else graph
    cache = next(value for value in model.graph.input if value.name == "past_key.0")
    dtype = helper.tensor_dtype_to_np_dtype(cache.type.tensor_type.elem_type)
    layout = memory.layout(
        shape, slots=slots, context_tokens=context_tokens, item_bytes=dtype.itemsize
    )
    capacity = Capacity(
        layout=layout,
        context_tokens=context_tokens,
        chunk_tokens=min(chunk_tokens, context_tokens),
        vocabulary=shape.vocabulary,
    )
    model = dialects.with_cache(model, layout.tokens)
    return candidates.with_candidates(model, shape.vocabulary), capacity


def _key(
    source: Source,
    capacity: Capacity,
    model: onnx.ModelProto,
    card: plans.Card,
    *,
    streaming: bool,
) -> plans.Key:
    """Return all that the plan depends on."""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    if isinstance(source.stored.graph, Path):
        digest.update(manifest.read(source.folder).files[manifest.DATA].sha256.encode())
    return plans.Key(
        model=digest.hexdigest(),
        precision=source.stored.precision,
        builder=decoder.VERSION,
        prefill=(1, capacity.chunk_tokens, capacity.rows),
        decode=(capacity.layout.slots,),
        cache_tokens=capacity.layout.tokens,
        streaming=streaming,
        card=card,
    )


def _plan(
    maker: Maker, wanted: _Wanted, folder: Path, progress: Progress, *, build: bool
) -> memoryview:
    """Return the plan from the disk, or build it and keep it there. Raises ConfigError."""
    key = wanted.key
    with plans.locked(folder, key):
        found = plans.find(folder, key)
        if found:
            return found.content
        there = ", ".join(plans.others(folder, key))
        if not build:
            raise ConfigError(
                f"{folder}: no plan for {key.card}{f', but one for {there}' if there else ''}; "
                "build it here with `zeta model build`, or set tensorrt.build = true"
            )
        log.info("building a plan, which takes minutes", card=str(key.card), other_plans=there)
        return _built(maker, wanted, folder, progress)


def _built(maker: Maker, wanted: _Wanted, folder: Path, progress: Progress) -> memoryview:
    """Build the plan and keep it, with the timings, for the next start."""
    timings = plans.timings(folder, wanted.key.card)
    task = Task(
        model=wanted.model,
        folder=wanted.weights,
        profiles=profiles(wanted.capacity),
        streaming=wanted.key.streaming,
        timings=plans.read(timings).content if timings.exists() else b"",
    )
    built = maker.build(task, progress)
    plans.write(timings, built.timings, wanted.key.card)
    plans.write(folder / wanted.key.name, built.plan, wanted.key.card, wanted.key)
    return built.plan


def _refuse_old(card: plans.Card, precision: str) -> None:
    least = _LEAST_CAPABILITY.get(precision, (0, 0))
    major, minor = card.capability.split(".")
    if (int(major), int(minor)) < least:
        raise ConfigError(
            f"{card.gpu} (compute capability {card.capability}) does not compute in {precision}, "
            f"which needs {least[0]}.{least[1]}: import the model with --precision fp16"
        )


class Told:
    """Logs how far a build is, not too often: where nobody watches a terminal."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """As `Progress`."""
        now_s = monotonic()
        if now_s - self._last_s >= _TOLD_EVERY_S:
            self._last_s = now_s
            log.info("building a plan", stage=stage, done=done, total=total)
