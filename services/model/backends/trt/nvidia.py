"""A card through CUDA's runtime, and plans on it through TensorRT.

Written for TensorRT 11 and CUDA 13; `tests/contract/test_tensorrt.py` checks every name and call
here and in `build` against the real bindings. Memory is plain `cudaMalloc`; everything goes through
one stream of the card's, and never touches the card's modes or clocks.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import structlog
import tensorrt as trt
from cuda.bindings import runtime as cuda
from numpy.typing import DTypeLike, NDArray

from services.kit.errors import ConfigError
from services.model.backends.trt import plans
from services.model.backends.trt.device import Grid, Sizes, Strips

log = structlog.get_logger()

_KEPT_MESSAGES = 3


class Log(trt.ILogger):  # type: ignore[misc]  # types come where TensorRT is
    """Passes TensorRT's messages on, and remembers what went wrong: its calls only say that."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._wrong: deque[str] = deque(maxlen=_KEPT_MESSAGES)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """As TensorRT defines it; called from its threads too."""
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self._wrong.append(msg)
            log.error("tensorrt", message=msg)
        elif severity == trt.ILogger.WARNING:
            log.warning("tensorrt", message=msg)
        else:
            log.debug("tensorrt", message=msg)

    def reason(self) -> str:
        """Return what went wrong last, and forget it."""
        said = "; ".join(self._wrong) or "TensorRT gave no reason"
        self._wrong.clear()
        return said


class Card:
    """One GPU: a `device.Device`."""

    def __init__(self, index: int) -> None:
        """Take GPU number *index*. Raises ConfigError where there is none."""
        error, count = cuda.cudaGetDeviceCount()
        if error != cuda.cudaError_t.cudaSuccess or not count:
            raise ConfigError(
                f"no NVIDIA GPU can be used here ({_text(error)}): start on a machine with a GPU "
                'and a driver for CUDA 13, or set runtime = "onnxruntime"'
            )
        if index >= count:
            raise ConfigError(f"tensorrt.gpu = {index}: there are {count}, counted from 0")
        self.index = index
        self._thread = 0
        self._here()
        self.stream = int(_done(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))

    def about(self) -> plans.Card:
        """Return what plans depend on."""
        found = _done(cuda.cudaGetDeviceProperties(self.index))
        return plans.Card(
            gpu=found.name.decode(),
            capability=f"{found.major}.{found.minor}",
            tensorrt=trt.__version__,
            cuda=_done(cuda.cudaDriverGetVersion()) // 1000,
        )

    def free_bytes(self) -> int:
        """Return how much memory nobody has."""
        self._here()
        free, _ = _done(cuda.cudaMemGetInfo())
        return int(free)

    def allocate(self, size_bytes: int) -> int:
        """As `Device.allocate`."""
        self._here()
        error, address = cuda.cudaMalloc(size_bytes)
        if error == cuda.cudaError_t.cudaErrorMemoryAllocation:
            cuda.cudaGetLastError()  # or the next call would report it again
            raise MemoryError(f"{size_bytes} bytes on the GPU")
        out = int(_done((error, address)))
        _done(cuda.cudaMemset(out, 0, size_bytes))
        return out

    def pinned(self, shape: Sizes, dtype: DTypeLike) -> NDArray[Any]:
        """As `Device.pinned`."""
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(_done(cuda.cudaMallocHost(max(size_bytes, 1))))
        memory = (ctypes.c_byte * size_bytes).from_address(address)
        out: NDArray[Any] = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        out[...] = 0
        return out

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """As `Device.upload`."""
        self._copy(address, source.ctypes.data, source.nbytes, to_device=True)

    def download(self, target: NDArray[Any], address: int) -> None:
        """As `Device.download`."""
        self._copy(target.ctypes.data, address, target.nbytes, to_device=False)

    def move(self, source: Grid, target: Grid, strips: Strips) -> None:
        """As `Device.move`: one call for all of it."""
        self._here()
        task = cuda.cudaMemcpy3DParms()
        task.srcPtr, task.dstPtr = _pitched(source), _pitched(target)
        task.extent = _extent(strips)
        task.kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _done(cuda.cudaMemcpy3DAsync(task, self.stream))

    def wait(self) -> None:
        """As `Device.wait`."""
        _done(cuda.cudaStreamSynchronize(self.stream))

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """As `Device.recorded`: a CUDA graph."""
        self._here()
        # Other threads of this process may use CUDA meanwhile.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _done(cuda.cudaStreamBeginCapture(self.stream, mode))
        try:
            work()
        finally:
            graph = _done(cuda.cudaStreamEndCapture(self.stream))
        ready = _done(cuda.cudaGraphInstantiate(graph, 0))
        _done(cuda.cudaGraphDestroy(graph))

        def replay() -> None:
            self._here()
            _done(cuda.cudaGraphLaunch(ready, self.stream))

        return replay

    def _copy(self, target: int, source: int, size_bytes: int, *, to_device: bool) -> None:
        self._here()
        kinds = cuda.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice if to_device else kinds.cudaMemcpyDeviceToHost
        _done(cuda.cudaMemcpyAsync(target, source, size_bytes, kind, self.stream))

    def _here(self) -> None:
        """Make this thread's calls mean this card: CUDA keeps the choice per thread."""
        thread = threading.get_ident()
        if thread != self._thread:
            _done(cuda.cudaSetDevice(self.index))
            self._thread = thread


class Plan:
    """A plan, loaded."""

    def __init__(self, content: memoryview, said: Log) -> None:
        """Load what `build` made. Raises ConfigError."""
        self._said = said
        self._runtime = trt.Runtime(said)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise ConfigError(f"TensorRT does not load the plan: {said.reason()}")
        self.engine = engine

    def keep_weights(self, room_bytes: int) -> int:
        """Keep weights on the card as far as there is room; return how many bytes stay away."""
        streamable = int(self.engine.streamable_weights_size)
        if streamable:
            self.engine.weight_streaming_budget_v2 = min(room_bytes, streamable)
        return max(0, streamable - room_bytes)

    def context(self, profile: int, card: Card) -> "Context":
        """Return one profile, ready. Raises MemoryError."""
        strategy = trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        context = self.engine.create_execution_context(strategy)
        if context is None or not context.set_optimization_profile_async(profile, card.stream):
            raise MemoryError(self._said.reason())
        card.wait()
        self._check_aliases()
        return Context(context, card, self._said)

    def _check_aliases(self) -> None:
        """Caches must be updated in place: an output elsewhere would never be read."""
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        for name in (n for n in names if n.startswith("present_")):
            shared = self.engine.get_aliased_input_tensor(name)
            if shared != name.replace("present_", "past_", 1):
                raise ConfigError(
                    f"TensorRT {trt.__version__} would not update the cache in place: {name} "
                    f"shares memory with {shared or 'no input'}; use TensorRT 10.15 or later"
                )


class Context:
    """One profile of a plan: a `device.Context`."""

    def __init__(self, context: trt.IExecutionContext, card: Card, said: Log) -> None:
        self._context, self._card, self._said = context, card, said

    def bind(self, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> None:
        """As `device.Context.bind`."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise RuntimeError(f"{name} of shape {shape}: {self._said.reason()}")
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise RuntimeError(f"{name} at {address}: {self._said.reason()}")

    def enqueue(self) -> None:
        """As `device.Context.enqueue`."""
        self._card._here()  # noqa: SLF001 - the same module's
        if not self._context.execute_async_v3(self._card.stream):
            raise RuntimeError(self._said.reason())


def _pitched(grid: Grid) -> cuda.cudaPitchedPtr:
    out = cuda.cudaPitchedPtr()
    out.ptr, out.pitch = grid.address, grid.row_bytes
    out.xsize, out.ysize = grid.row_bytes, grid.plane_bytes // grid.row_bytes
    return out


def _extent(strips: Strips) -> cuda.cudaExtent:
    out = cuda.cudaExtent()
    out.width, out.height, out.depth = strips.width_bytes, strips.rows, strips.planes
    return out


def _done(result: tuple[Any, ...]) -> Any:
    """Return what a call of CUDA's returned. Raises RuntimeError with CUDA's words."""
    error, *values = result
    if error != cuda.cudaError_t.cudaSuccess:
        raise RuntimeError(f"CUDA: {_text(error)}")
    return values[0] if len(values) == 1 else tuple(values)


def _text(error: cuda.cudaError_t) -> str:
    return f"{error.name}: {cuda.cudaGetErrorString(error)[1].decode()}"
