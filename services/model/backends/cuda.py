"""ONNX Runtime on an NVIDIA card: as `backends.ort`, with everything in the card's memory.

Caches, inputs and logits are allocated once and bound by address; of a step only the tokens go to
the card and only the logits come back. Slots are copied on the card, whole, by a graph that does
nothing else. Attention reads each row up to its own length, so a decode step may say of the longest
row only that it fits: all its inputs then have one address and one shape per batch size, which is
what a CUDA graph needs.

With `device="cpu"` the same steps run in ordinary memory; that is for tests.

Letters: B sequences, T tokens, V vocabulary, W wanted positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from services.kit.errors import ConfigError
from services.model.backends.base import Ids, Logits
from services.model.graph.checkpoint import Shape
from services.model.graph.decoder import IR_VERSION
from services.model.graph.halves import halved
from services.model.graph.runnable import Runnable

Device = Literal["cuda", "cpu"]

_PROVIDERS: Mapping[Device, str] = {
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_INSTALL = (
    "it takes the place of onnxruntime: `pip install 'zeta[cuda]'`, `pip uninstall onnxruntime`, "
    "`pip install --force-reinstall --no-deps onnxruntime-gpu`"
)
_NO_GRAPH = -1
"""The runtime's word for a step that is not to be captured."""


def load(
    stored: Runnable, *, slots: int, context_tokens: int, gpu: int = 0, graphs: bool = False
) -> "CudaBackend":
    """Put a model on a card. Raises ConfigError that says what is missing or too much."""
    graph, folder = stored.graph, None
    if isinstance(graph, Path):
        folder = graph.parent
        graph = onnx.load(graph, load_external_data=False)
    return CudaBackend(
        halved(graph, stored.precision, folder), stored.shape, folder=folder,
        slots=slots, context_tokens=context_tokens, gpu=gpu, graphs=graphs,
    )  # fmt: skip


class CudaBackend:
    """Runs a graph of `graph.decoder`, in dialect "ort", on a card."""

    def __init__(
        self,
        model: onnx.ModelProto,
        shape: Shape,
        *,
        folder: Path | None = None,
        slots: int,
        context_tokens: int,
        device: Device = "cuda",
        gpu: int = 0,
        graphs: bool = False,
    ) -> None:
        """Load a graph whose file of weights, if any, is in *folder*.

        *graphs*: capture a CUDA graph per batch size. Raises ConfigError that says what is
        missing: the runtime, the card, the memory.
        """
        import onnxruntime  # noqa: PLC0415 - importing this package must not need the runtime

        self.slots, self.context_tokens, self._shape = slots, context_tokens, shape
        self._place = _Place(onnxruntime, device, gpu)
        self._session = self._place.session(model, folder, graphs=graphs)
        cache = next(value for value in model.graph.input if value.name == "past_key.0")
        element = cache.type.tensor_type.elem_type
        # One slot more than there are, for swapping.
        size = (slots + 1, shape.kv_heads, context_tokens, shape.head_dim)
        names = [f"{what}.{i}" for i in range(shape.layers) for what in ("key", "value")]
        self._caches = {name: self._place.zeros(size, element) for name in names}
        self._slot_bytes = int(np.prod(size[1:])) * _width(element)
        self._element, self._graphs = element, graphs
        self._mover = self._place.session(_mover(names, size[1:], element), None)
        self._batches: dict[int, _Batch] = {}

    def prefill(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """As `Backend.prefill`."""
        count = len(tokens)
        logits = np.empty((wanted, self._shape.vocabulary), np.float32)
        binding = self._session.io_binding()
        held = self._inputs(1, count, wanted)
        held["tokens"].update_inplace(np.ascontiguousarray(tokens[None, :]))
        held["lengths"].update_inplace(np.array([start + count - 1], np.int32))
        held["longest"].update_inplace(np.array(start + count, np.int32))
        if wanted:
            held["wanted"].update_inplace(np.arange(count - wanted, count))
        self._bind(binding, held, slot, 1)
        value = self._place.runtime.OrtValue.ortvalue_from_numpy
        binding.bind_ortvalue_output("logits", value(logits))
        self._run(binding, _NO_GRAPH)
        return logits

    def decode(self, tokens: Ids, lengths: Ids) -> Logits:
        """As `Backend.decode`."""
        count = len(tokens)
        batch = self._batches.get(count)
        if batch is None:
            batch = self._batches[count] = self._batch(count)
        batch.held["tokens"].update_inplace(np.ascontiguousarray(tokens[:, None]))
        batch.held["lengths"].update_inplace(lengths.astype(np.int32))
        self._run(batch.binding, count)
        logits: Logits = batch.logits.numpy()
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        """As `Backend.copy`; moves the slot whole."""
        del length
        binding = self._mover.io_binding()
        for name in self._caches:
            binding.bind_input(f"from.{name}", *self._slots(name, source, None))
            binding.bind_output(f"to.{name}", *self._slots(name, target, None))
        self._mover.run_with_iobinding(binding)

    def swap(self, one: int, other: int, length: int) -> None:
        """As `Backend.swap`."""
        for source, target in ((one, self.slots), (other, one), (self.slots, other)):
            self.copy(source, target, length)

    def _batch(self, count: int) -> "_Batch":
        held = self._inputs(count, 1, count)
        held["longest"].update_inplace(np.array(self.context_tokens, np.int32))
        held["wanted"].update_inplace(np.arange(count))
        logits = self._place.empty((count, self._shape.vocabulary), TensorProto.FLOAT)
        binding = self._session.io_binding()
        self._bind(binding, held, 0, count)
        binding.bind_ortvalue_output("logits", logits)
        return _Batch(held, logits, binding)

    def _inputs(self, rows: int, count: int, wanted: int) -> dict[str, Any]:
        """Allocate what a step reads beside the caches; the longest length is read on the host."""
        empty, host = self._place.empty, self._place.runtime.OrtValue
        return {
            "tokens": empty((rows, count), TensorProto.INT64),
            "lengths": empty((rows,), TensorProto.INT32),
            "longest": host.ortvalue_from_numpy(np.zeros((), np.int32)),
            "wanted": empty((wanted,), TensorProto.INT64),
        }

    def _bind(self, binding: Any, held: Mapping[str, Any], slot: int, rows: int) -> None:
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._caches:
            binding.bind_input(f"past_{name}", *self._slots(name, slot, rows))
            binding.bind_output(f"present_{name}", *self._slots(name, slot, rows))

    def _slots(self, name: str, slot: int, rows: int | None) -> tuple[Any, ...]:
        """Return where slots of a cache are, as bindings take it; *rows* None: one, by itself."""
        size = self._caches[name].shape()[1:]
        address = self._caches[name].data_ptr() + slot * self._slot_bytes
        shape = size if rows is None else [rows, *size]
        return self._place.device, self._place.gpu, self._element, shape, address

    def _run(self, binding: Any, graph: int) -> None:
        options = self._place.runtime.RunOptions()
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", str(graph))
        binding.synchronize_inputs()  # they were copied on another stream than the step's
        self._session.run_with_iobinding(binding, options)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a decode step of one batch size reads and writes."""

    held: Mapping[str, Any]
    logits: Any
    binding: Any


class _Place:
    """Where sessions run and memory is."""

    def __init__(self, runtime: Any, device: Device, gpu: int) -> None:
        self.runtime, self.device, self.gpu = runtime, device, gpu if device == "cuda" else 0
        if _PROVIDERS[device] not in runtime.get_available_providers():
            raise ConfigError(f'device = "cuda" needs onnxruntime-gpu; {_INSTALL}')
        if device == "cuda":
            # CUDA and cuDNN may have come as packages, where the loader does not look.
            runtime.preload_dlls()

    def session(self, model: onnx.ModelProto, folder: Path | None, *, graphs: bool = False) -> Any:
        """Load a graph whose file of weights, if any, is in *folder*. Raises ConfigError."""
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        if folder is not None:
            key = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(key, str(folder))
        provider = _PROVIDERS[self.device]
        settings = {"device_id": str(self.gpu), "enable_cuda_graph": str(int(graphs))}
        chosen = [(provider, settings)] if self.device == "cuda" else [provider]
        out = self._told(
            lambda: self.runtime.InferenceSession(model.SerializeToString(), options, chosen)
        )
        if provider not in out.get_providers():
            raise ConfigError(
                f"GPU {self.gpu} cannot be used: no such card, or no driver or CUDA libraries of "
                "the version that onnxruntime-gpu was built for; `nvidia-smi` lists cards, and "
                "`pip install 'onnxruntime-gpu[cuda,cudnn]'` brings the libraries"
            )
        return out

    def empty(self, shape: tuple[int, ...], element: int) -> Any:
        """Allocate an array. Raises ConfigError where there is no room."""
        make = self.runtime.OrtValue.ortvalue_from_shape_and_type
        return self._told(lambda: make(shape, element, self.device, self.gpu))

    def zeros(self, shape: tuple[int, ...], element: int) -> Any:
        """Allocate zeros: what was in the memory before may be no numbers."""
        out = self.empty(shape, element)
        host = np.zeros(shape, helper.tensor_dtype_to_np_dtype(element))
        bits = host.view(np.uint16) if host.itemsize == 2 else host  # noqa: PLR2004 - bytes
        kind = self.runtime.OrtValue.ortvalue_from_numpy_with_onnx_type
        out.update_inplace(kind(bits, element))
        return out

    def _told(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except Exception as error:  # the runtime's errors have no common class of their own
            if not type(error).__module__.startswith("onnxruntime") and not isinstance(
                error, RuntimeError
            ):
                raise
            raise ConfigError(
                f"GPU {self.gpu} does not take the model ({error}); where memory ran out, lower "
                "max_running or context_tokens, or import with --precision int4"
            ) from error


def _width(element: int) -> int:
    return helper.tensor_dtype_to_np_dtype(element).itemsize


def _mover(names: list[str], size: tuple[int, ...], element: int) -> onnx.ModelProto:
    """Write a graph that copies one slot of each cache."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"from.{n}"], [f"to.{n}"]) for n in names],
        "mover",
        [value(f"from.{n}", element, size) for n in names],
        [value(f"to.{n}", element, size) for n in names],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
