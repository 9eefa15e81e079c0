"""ONNX Runtime on CPU.

One cache buffer per layer is bound as input and output, so that attention appends in place; a batch
is a prefix of it, a prompt's piece one row (several new tokens with a past need batch size 1).
Decode bindings, their inputs and logits included, are made once per batch size.

Letters: B sequences, T tokens, V vocabulary, W wanted positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from services.model.backends.base import Ids, Logits
from services.model.graph.checkpoint import Shape
from services.model.graph.dialects import DialectName
from services.model.graph.widen import widened

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_PRODUCTS_OF_BITS = "session.qdq_matmulnbits_accuracy_level"
"""1: activations stay float32 where ONNX Runtime multiplies by quantised weights by itself."""

Integers = NDArray[np.integer[Any]]


class OrtBackend:
    """Runs a graph of `graph.decoder` on this machine's processors."""

    def __init__(
        self,
        model: onnx.ModelProto | Path,
        shape: Shape,
        *,
        slots: int,
        context_tokens: int,
        threads: int,
        frugal: bool = False,
        dialect: DialectName = "ort",
    ) -> None:
        """Load a graph, or the file of one; *frugal*: weights stay mapped, and steps are slow.

        A graph in another dialect than "ort" runs too, in float32 and slowly: each step looks at
        whole slots. That is for comparing dialects, not for serving.
        """
        import onnxruntime  # noqa: PLC0415 - importing this package must not need the runtime

        self.slots, self.context_tokens = slots, context_tokens
        self._runtime, self._shape, self._dialect = onnxruntime, shape, dialect
        options = _options(onnxruntime, threads, frugal=frugal)
        if dialect != "ort":
            model = _comparable(model, options)
        self._session = onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model.SerializeToString(),
            options,
            ["CPUExecutionProvider"],
        )
        size = (slots, shape.kv_heads, context_tokens, shape.head_dim)
        self._caches = {
            f"{what}.{i}": np.zeros(size, np.float32)
            for i in range(shape.layers)
            for what in ("key", "value")
        }
        self._batches: dict[int, _Batch] = {}

    def prefill(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """As `Backend.prefill`."""
        logits = np.empty((wanted, self._shape.vocabulary), np.float32)
        binding = self._binding(
            slice(slot, slot + 1),
            logits,
            {
                "tokens": np.ascontiguousarray(tokens[None, :]),
                "wanted": np.arange(len(tokens) - wanted, len(tokens)),
                **_places(self._dialect, np.array([start]), len(tokens), start + len(tokens)),
            },
        )
        self._session.run_with_iobinding(binding)
        return logits

    def decode(self, tokens: Ids, lengths: Ids) -> Logits:
        """As `Backend.decode`."""
        batch = self._batches.get(len(tokens))
        if batch is None:
            batch = self._batches[len(tokens)] = self._batch(len(tokens))
        batch.tokens[:, 0] = tokens
        for name, value in _places(self._dialect, lengths, 1, self.context_tokens).items():
            batch.places[name][...] = value
        self._session.run_with_iobinding(batch.binding)
        return batch.logits

    def copy(self, source: int, target: int, length: int) -> None:
        """As `Backend.copy`."""
        for cache in self._caches.values():
            cache[target, :, :length] = cache[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """As `Backend.swap`."""
        for cache in self._caches.values():
            moved = cache[one, :, :length].copy()
            cache[one, :, :length] = cache[other, :, :length]
            cache[other, :, :length] = moved

    def _batch(self, count: int) -> "_Batch":
        tokens = np.zeros((count, 1), np.int64)
        places = _places(self._dialect, np.zeros(count, np.int64), 1, self.context_tokens)
        logits = np.empty((count, self._shape.vocabulary), np.float32)
        inputs = {"tokens": tokens, "wanted": np.arange(count), **places}
        return _Batch(tokens, places, logits, self._binding(slice(count), logits, inputs))

    def _binding(self, rows: slice, logits: Logits, inputs: Mapping[str, Integers]) -> Any:
        """Bind *inputs*, the cache of slots *rows* and *logits*; all of them are used in place."""
        binding = self._session.io_binding()
        value = self._runtime.OrtValue.ortvalue_from_numpy
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, value(array))
        for name, cache in self._caches.items():
            part = value(cache[rows])
            binding.bind_ortvalue_input(f"past_{name}", part)
            binding.bind_ortvalue_output(f"present_{name}", part)
        binding.bind_ortvalue_output("logits", value(logits))
        return binding


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a decode step of one batch size reads and writes."""

    tokens: Ids
    places: Mapping[str, Integers]
    logits: Logits
    binding: Any


def _places(dialect: DialectName, starts: Ids, count: int, seen: int) -> dict[str, Integers]:
    """Return the inputs that say where *count* tokens go in rows that hold *starts* (B,)."""
    if dialect == "trt":
        return {"positions": starts[:, None] + np.arange(count), "seen": np.arange(seen)}
    return {
        "lengths": (starts + count - 1).astype(np.int32),
        "longest": np.array(starts.max() + count, np.int32),
    }


def _comparable(model: onnx.ModelProto | Path, options: Any) -> onnx.ModelProto:
    """Return a graph in another dialect as one in float32, and set *options* for it."""
    options.add_session_config_entry(_PRODUCTS_OF_BITS, "1")
    if isinstance(model, Path):
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(model.parent))
        model = onnx.load(model, load_external_data=False)
    return widened(model)


def _options(runtime: Any, threads: int, *, frugal: bool) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Models share cores: a thread that spins while it waits takes them from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if frugal:
        # Neither copies in a kernel's favourite order nor stored halves turned to float32 for good.
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
        # The default order turns all of them first, and only then uses them.
        options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    return options
