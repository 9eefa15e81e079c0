"""Put a model on a card: fit it in, find its plan or build one, load it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import onnx
import structlog
from onnx import helper

from services.kit.config import TensorRT
from services.kit.errors import ConfigError
from services.model.backends.trt import memory, plans
from services.model.backends.trt.backend import Capacity, TensorRTBackend, profiles
from services.model.backends.trt.memory import Needs
from services.model.graph import candidates, decoder, dialects, manifest
from services.model.graph.checkpoint import Shape
from services.model.graph.runnable import Runnable

log = structlog.get_logger()

Progress = Callable[[str, int, int], None]
"""Told the stage, what is done, and what there is to do."""

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


def load(source: Source, settings: TensorRT, progress: Progress | None = None) -> TensorRTBackend:
    """Put a model on the card. Raises ConfigError that says what is missing or too much."""
    nvidia = _needs_tensorrt("nvidia")
    card = nvidia.Card(settings.gpu)
    about = card.about()
    _refuse_old(about, source.stored.precision)
    model, capacity = prepared(
        source.stored.graph,
        source.stored.shape,
        slots=source.slots,
        context_tokens=source.context_tokens,
        chunk_tokens=source.chunk_tokens,
    )
    needs = Needs(
        weights_bytes=decoder.written_bytes(source.stored.shape, source.stored.precision),
        layout=capacity.layout,
        context_tokens=source.context_tokens,
        other_bytes=sum(capacity.parts().values()),
    )
    free_bytes = card.free_bytes()
    streaming = needs.streams(free_bytes)
    said = nvidia.Log()
    wanted = _Wanted(
        key=key_of(source, capacity, model, about, streaming=streaming),
        model=model,
        weights=source.folder if isinstance(source.stored.graph, Path) else None,
        capacity=capacity,
    )
    content = _plan(wanted, settings, said, progress or Told())
    plan = nvidia.Plan(content, said)
    away = plan.keep_weights(needs.weights_room(card.free_bytes()))
    if away:
        log.warning("weights stream over the bus at every step", bytes=away)
    try:
        contexts = [plan.context(profile, card) for profile in (0, 1)]
        return TensorRTBackend(card, capacity, *contexts)
    except MemoryError as error:
        taken = needs.weights_bytes - away + needs.other_bytes
        said_too_much = needs.too_much(free_bytes, free_bytes - taken)
        raise ConfigError(f"{said_too_much} ({error})") from error


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
        chunk_tokens=chunk_tokens,
        vocabulary=shape.vocabulary,
    )
    model = dialects.with_cache(model, layout.tokens)
    return candidates.with_candidates(model, shape.vocabulary), capacity


def key_of(
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


def _plan(wanted: _Wanted, settings: TensorRT, said: Any, progress: Progress) -> memoryview:
    """Return the plan from the disk, or build it and keep it there. Raises ConfigError."""
    folder, key = Path(settings.plan_dir), wanted.key
    with plans.locked(folder, key):
        found = plans.find(folder, key)
        if found:
            return found.content
        there = ", ".join(plans.others(folder, key))
        if not settings.build:
            raise ConfigError(
                f"{folder}: no plan for {key.card}{f', but one for {there}' if there else ''}; "
                "build it here with `zeta model build`, or set tensorrt.build = true"
            )
        log.info("building a plan, which takes minutes", card=str(key.card), other_plans=there)
        return _built(wanted, folder, said, progress)


def _built(wanted: _Wanted, folder: Path, said: Any, progress: Progress) -> memoryview:
    """Build the plan and keep it, with the timings, for the next start."""
    build, timings = _needs_tensorrt("build"), plans.timings(folder, wanted.key.card)
    task = build.Task(
        model=wanted.model,
        folder=wanted.weights,
        profiles=profiles(wanted.capacity),
        streaming=wanted.key.streaming,
        timings=plans.read(timings).content if timings.exists() else b"",
    )
    built = build.build(task, said, progress)
    plans.write(timings, built.timings, wanted.key.card)
    plans.write(folder / wanted.key.name, built.plan, wanted.key.card, wanted.key)
    content: memoryview = built.plan
    return content


def _needs_tensorrt(module: str) -> Any:
    """Import what needs TensorRT. Raises ConfigError that says how to install it."""
    try:
        return import_module(f"services.model.backends.trt.{module}")
    except ImportError as error:
        raise ConfigError(
            f'runtime = "tensorrt" needs TensorRT 11 and cuda-bindings ({error}): install them '
            "with `pip install 'zeta[tensorrt]'`, where NVIDIA's package index can be reached, or "
            'use one of NVIDIA\'s TensorRT images; or set runtime = "onnxruntime"'
        ) from error


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
