"""Turn a decoder graph into a plan.

Networks are strongly typed: a plan computes in the types that the graph states, in fp32, fp16 or
bf16, and in fp8 where a graph quantises and dequantises so; nothing here chooses a precision. Two
optimisation profiles: a prompt's piece (0) and a decode step (1).
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import structlog
import tensorrt as trt

from services.kit.errors import ConfigError
from services.model.backends.trt.device import Built, Progress, Shapes, Task
from services.model.backends.trt.engine import Log
from services.model.graph import manifest

log = structlog.get_logger()


def build(task: Task, said: Log, progress: Progress) -> Built:
    """Build a plan: minutes. Raises ConfigError with TensorRT's reason, or what stopped it."""
    builder = trt.Builder(said)
    network = builder.create_network()
    _parse(network, task, said)
    config = builder.create_builder_config()
    monitor = Monitor(progress)
    config.progress_monitor = monitor
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # What is float32 in the graph is float32: TensorRT would round its products to TF32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if task.streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    for shapes in task.profiles:
        config.add_optimization_profile(_profile(builder, shapes))
    _set_timings(config, bytes(task.timings))
    plan: Any = builder.build_serialized_network(network, config)
    if monitor.stopped_by:
        raise monitor.stopped_by
    if plan is None:
        raise ConfigError(f"TensorRT does not build the model: {said.reason()}")
    measured: Any = config.get_timing_cache().serialize()
    return Built(memoryview(plan), memoryview(measured))


def _parse(network: trt.INetworkDefinition, task: Task, said: Log) -> None:
    parser = trt.OnnxParser(network, said)
    # The path says where weights lie that are not in the graph.
    where = (str(task.folder / manifest.GRAPH),) if task.folder else ()
    if not parser.parse(task.model.SerializeToString(), *where):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        told = "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in errors)
        raise ConfigError(f"TensorRT does not read the graph: {told or said.reason()}")


def _profile(builder: trt.Builder, shapes: Shapes) -> trt.IOptimizationProfile:
    profile = builder.create_optimization_profile()
    for name, (least, likely, most) in shapes.items():
        profile.set_shape(name, trt.Dims(least), trt.Dims(likely), trt.Dims(most))
    return profile


def _set_timings(config: trt.IBuilderConfig, timings: bytes) -> None:
    """Go on with the timings of earlier builds, or from the beginning where they do not fit."""
    for content in (timings, b"") if timings else (b"",):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
        log.warning("timings do not fit this card; measuring anew")


@dataclass(slots=True)
class _Phase:
    parent: str
    steps: int
    done: int = 0


@dataclass(slots=True)
class _Phases:
    """What TensorRT is at, as one line: its phases are nested, and come from several threads."""

    open: dict[str, _Phase] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # types come where TensorRT is
    """Tells of the outermost phase that has several steps, and lets a build be stopped."""

    def __init__(self, progress: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self.stopped_by: BaseException | None = None
        """What an interrupt raised inside TensorRT, where it cannot go on its way."""
        self._progress, self._phases = progress, _Phases()

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: Any) -> None:
        """As TensorRT defines it."""
        with self._phases.lock:
            self._phases.open[phase_name] = _Phase(parent_phase or "", int(num_steps))

    def step_complete(self, phase_name: str, step: Any) -> bool:
        """As TensorRT defines it; False stops the build."""
        try:
            with self._phases.lock:
                self._phases.open[phase_name].done = int(step) + 1
                shown = self._shown()
            if shown:
                name, phase = shown
                self._progress(f"building: {name}", phase.done, phase.steps)
        except BaseException as error:  # noqa: BLE001 - raised again once TensorRT has returned
            self.stopped_by = error
        return self.stopped_by is None

    def phase_finish(self, phase_name: str) -> None:
        """As TensorRT defines it."""
        with self._phases.lock:
            self._phases.open.pop(phase_name, None)

    def _shown(self) -> tuple[str, _Phase] | None:
        several = ((n, p) for n, p in self._phases.open.items() if p.steps > 1)
        return next(several, None)
