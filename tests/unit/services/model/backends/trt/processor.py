"""A card made of this machine's memory, and plans that ONNX Runtime runs.

What the backend asks of `device.Device` and `device.Context` is done at once and in place. What a
GPU would punish is refused: an address that nobody allocated, a shape outside its profile, an input
that was never bound, memory that is not pinned, and work in a recording that is not for a stream.
"""

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import DTypeLike, NDArray
from onnx import helper
from onnx.external_data_helper import load_external_data_for_model

from services.model.backends.trt import plans
from services.model.backends.trt.backend import TensorRTBackend
from services.model.backends.trt.capacity import profiles
from services.model.backends.trt.device import (
    Built,
    Grid,
    Loaded,
    Progress,
    Shapes,
    Sizes,
    Strips,
    Task,
)
from services.model.backends.trt.open import prepared
from services.model.graph import decoder
from services.model.graph.checkpoint import Checkpoint

_ALIGNMENT = 256
_CHUNK_TOKENS = 16


def on_processor(
    stored: Checkpoint,
    *,
    slots: int,
    context_tokens: int,
    buckets: Sequence[int],
    size_bytes: int = 1 << 28,
) -> TensorRTBackend:
    """Put *stored* in its "trt" dialect on a `Processor`."""
    model = decoder.build(stored, dialect="trt")
    model, capacity = prepared(
        model, stored.shape, slots=slots, context_tokens=context_tokens, chunk_tokens=_CHUNK_TOKENS
    )
    card = Processor(size_bytes)
    prefill, decode = (Graph(card, model, profile) for profile in profiles(capacity))
    return TensorRTBackend(card, capacity, prefill, decode, buckets)


class ProcessorMaker:
    """A `Maker`: its plans are graphs, with their profiles as metadata."""

    def __init__(self, gpu: str = "this processor", size_bytes: int = 1 << 34) -> None:
        self.device = Processor(size_bytes)
        self.built: list[Task] = []
        self.streams = False
        self._gpu = gpu

    def about(self) -> plans.Card:
        """As `Maker.about`."""
        return plans.Card(gpu=self._gpu, capability="9.0", tensorrt="11.4", cuda=13)

    def free_bytes(self) -> int:
        """As `Maker.free_bytes`."""
        return self.device.free_bytes

    def build(self, task: Task, progress: Progress) -> Built:
        """As `Maker.build`."""
        self.built.append(task)
        progress("building", 1, 2)
        model = onnx.ModelProto()
        model.CopyFrom(task.model)
        if task.folder:
            load_external_data_for_model(model, str(task.folder))
        model.metadata_props.add(key="profiles", value=json.dumps(task.profiles))
        plan = model.SerializeToString()
        return Built(memoryview(plan), memoryview(bytes(task.timings) + b"timed "))

    def load(self, content: memoryview, room_bytes: int) -> Loaded:
        """As `Maker.load`."""
        model = onnx.load_from_string(bytes(content))
        given = json.loads(model.metadata_props[0].value)
        prefill, decode = (Graph(self.device, model, profile) for profile in given)
        return Loaded(
            prefill=prefill,
            decode=decode,
            away_bytes=max(0, len(content) - room_bytes) if self.streams else 0,
        )


class Processor:
    """A `Device`."""

    def __init__(self, size_bytes: int) -> None:
        self.free_bytes = size_bytes
        self.recordings = 0
        self.records = True
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        self._pinned: list[NDArray[Any]] = []
        self._recording: list[Callable[[], None]] | None = None

    def allocate(self, size_bytes: int) -> int:
        """As `Device.allocate`."""
        if size_bytes > self.free_bytes:
            raise MemoryError(f"{size_bytes} bytes")
        self.free_bytes -= size_bytes
        block = np.zeros(size_bytes + _ALIGNMENT, np.uint8)
        address = -(-block.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self._blocks[address] = block[address - block.ctypes.data :][:size_bytes]
        return address

    def pinned(self, shape: Sizes, dtype: DTypeLike) -> NDArray[Any]:
        """As `Device.pinned`."""
        self._pinned.append(np.zeros(shape, dtype))
        return self._pinned[-1]

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """As `Device.upload`."""
        self._copy(address, source, to_device=True)

    def download(self, target: NDArray[Any], address: int) -> None:
        """As `Device.download`."""
        self._copy(address, target, to_device=False)

    def move(self, source: Grid, target: Grid, strips: Strips) -> None:
        """As `Device.move`."""
        for plane in range(strips.planes):
            for row in range(strips.rows):
                begin, end = (
                    grid.address + plane * grid.plane_bytes + row * grid.row_bytes
                    for grid in (source, target)
                )
                self.check(begin, strips.width_bytes)
                self.check(end, strips.width_bytes)
                assert abs(begin - end) >= strips.width_bytes, "strips overlap"
                ctypes.memmove(end, begin, strips.width_bytes)

    def wait(self) -> None:
        """As `Device.wait`."""
        assert self._recording is None, "nobody may wait while work is recorded"

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Device.recorded`."""
        if not self.records:
            raise RuntimeError("operation not permitted when stream is capturing")
        self._recording, self.recordings = [], self.recordings + 1
        work()
        steps, self._recording = self._recording, None

        def replay() -> None:
            for step in steps:
                step()

        return replay

    def do(self, step: Callable[[], None]) -> None:
        """Do *step*, or note it."""
        if self._recording is None:
            step()
        else:
            self._recording.append(step)

    def check(self, address: int, size_bytes: int) -> None:
        """Refuse memory that nobody allocated."""
        inside = any(
            start <= address and address + size_bytes <= start + len(block)
            for start, block in self._blocks.items()
        )
        assert inside, f"{size_bytes} bytes at {address} are nobody's"

    def _copy(self, address: int, array: NDArray[Any], *, to_device: bool) -> None:
        self.check(address, array.nbytes)
        assert array.flags.c_contiguous
        assert any(np.may_share_memory(array, kept) for kept in self._pinned), "not pinned"
        host, size_bytes = array.ctypes.data, array.nbytes
        target, source = (address, host) if to_device else (host, address)
        self.do(lambda: _moved(target, source, size_bytes))


class Graph:
    """A profile of a plan: a `Context` that runs ONNX Runtime."""

    def __init__(self, card: Processor, model: onnx.ModelProto, profile: Shapes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )
        self._card, self._profile = card, profile
        self._inputs, self._outputs = _types(model.graph.input), _types(model.graph.output)
        self._shapes: Mapping[str, Sizes] = {}
        self._addresses: Mapping[str, int] = {}

    def bind(self, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> None:
        """As `Context.bind`."""
        assert shapes.keys() == self._inputs.keys() == self._profile.keys()
        assert addresses.keys() == self._inputs.keys() | self._outputs.keys()
        for name, shape in shapes.items():
            least, _, most = self._profile[name]
            inside = all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
            assert inside, f"{name}: {shape} is not from {least} to {most}"
        for name in self._outputs:
            if name.startswith("present_"):
                assert addresses[name] == addresses[name.replace("present_", "past_")]
        assert all(address % _ALIGNMENT == 0 for address in addresses.values())
        self._shapes, self._addresses = shapes, addresses

    def enqueue(self) -> None:
        """As `Context.enqueue`."""
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        self._card.do(lambda: self._run(shapes, addresses))

    def _run(self, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> None:
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        given = {
            name: value(self._view(addresses[name], shape, self._inputs[name]))
            for name, shape in shapes.items()
        }
        binding = self._session.io_binding()
        for name, part in given.items():
            binding.bind_ortvalue_input(name, part)
        names = list(self._outputs)
        for name in names:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        for name, found in zip(names, binding.copy_outputs_to_cpu(), strict=True):
            self._view(addresses[name], found.shape, self._outputs[name])[...] = found

    def _view(self, address: int, shape: Sizes, dtype: np.dtype[Any]) -> NDArray[Any]:
        size_bytes = int(np.prod(shape)) * dtype.itemsize
        self._card.check(address, size_bytes)
        memory = (ctypes.c_byte * size_bytes).from_address(address)
        return np.frombuffer(memoryview(memory), dtype).reshape(shape)


def _types(values: Any) -> dict[str, np.dtype[Any]]:
    return {
        v.name: np.dtype(helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type))
        for v in values
    }


def _moved(target: int, source: int, size_bytes: int) -> None:
    ctypes.memmove(target, source, size_bytes)
