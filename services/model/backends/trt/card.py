"""A card through CUDA's runtime: a `device.Device`.

Memory is plain `cudaMalloc`; everything goes through one stream, and the card's modes and clocks
are left alone. `tests/contract/test_tensorrt.py` checks every call against the real bindings.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import runtime as cuda
from numpy.typing import DTypeLike, NDArray

from services.kit.errors import ConfigError
from services.model.backends.trt import plans
from services.model.backends.trt.device import Grid, Sizes, Strips


class Card:
    """One GPU."""

    def __init__(self, index: int) -> None:
        """Take GPU number *index*. Raises ConfigError where there is none."""
        error, count = cuda.cudaGetDeviceCount()
        if error != cuda.cudaError_t.cudaSuccess or not count:
            raise ConfigError(
                f"no NVIDIA GPU can be used here ({_text(error)}): start on a machine with a GPU "
                'and a driver for CUDA 13, or set runtime = "onnxruntime"'
            )
        if index >= count:
            raise ConfigError(f"models.gpu = {index}: there are {count}, counted from 0")
        self.index = index
        self._thread = 0
        self.here()
        self.stream = int(_done(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))

    def about(self, tensorrt: str) -> plans.Card:
        """Return what plans of version *tensorrt* depend on."""
        found = _done(cuda.cudaGetDeviceProperties(self.index))
        return plans.Card(
            gpu=found.name.decode(),
            capability=f"{found.major}.{found.minor}",
            tensorrt=tensorrt,
            cuda=_done(cuda.cudaDriverGetVersion()) // 1000,
        )

    def free_bytes(self) -> int:
        """Return how much memory nobody has."""
        self.here()
        free, _ = _done(cuda.cudaMemGetInfo())
        return int(free)

    def allocate(self, size_bytes: int) -> int:
        """As `Device.allocate`."""
        self.here()
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
        self.here()
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
        self.here()
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
            self.here()
            _done(cuda.cudaGraphLaunch(ready, self.stream))

        return replay

    def _copy(self, target: int, source: int, size_bytes: int, *, to_device: bool) -> None:
        self.here()
        kinds = cuda.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice if to_device else kinds.cudaMemcpyDeviceToHost
        _done(cuda.cudaMemcpyAsync(target, source, size_bytes, kind, self.stream))

    def here(self) -> None:
        """Make this thread's calls mean this card: CUDA keeps the choice per thread."""
        thread = threading.get_ident()
        if thread != self._thread:
            _done(cuda.cudaSetDevice(self.index))
            self._thread = thread


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
