"""What the backend asks of a card, and of TensorRT.

`maker` answers with TensorRT and CUDA. Tests answer with ONNX Runtime and NumPy, so that all that
is decided here (addresses, buckets, profiles, moves, which plan) runs without a card. Addresses are
integers; all work is done in the order in which it was asked for, in one stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx
from numpy.typing import DTypeLike, NDArray

from services.model.backends.trt import plans

Sizes = tuple[int, ...]
Shapes = Mapping[str, tuple[Sizes, Sizes, Sizes]]
"""Least, most likely and most of each input's dimensions: an optimisation profile."""
Progress = Callable[[str, int, int], None]
"""Told the stage, what is done, and what there is to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where equal strips of memory begin: rows at one regular distance, planes at another."""

    address: int
    row_bytes: int
    plane_bytes: int
    """A multiple of `row_bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strips:
    """How long the strips of a grid are, and how many."""

    width_bytes: int
    rows: int
    planes: int


class Device(Protocol):
    """A card's memory and its stream."""

    def allocate(self, size_bytes: int) -> int:
        """Return the address of so much memory, aligned to 256, all zero. Raises MemoryError.

        Zero, since what is masked out is multiplied by nothing: not even that may be infinite.
        """
        ...

    def pinned(self, shape: Sizes, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array that the card reads and writes directly."""
        ...

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Copy a pinned array to the card."""
        ...

    def download(self, target: NDArray[Any], address: int) -> None:
        """Copy from the card to a pinned array, which is valid after `wait`."""
        ...

    def move(self, source: Grid, target: Grid, strips: Strips) -> None:
        """Copy *strips* from one grid on the card to another; the two do not overlap."""
        ...

    def wait(self) -> None:
        """Wait until all work is done. Raises RuntimeError where some of it failed."""
        ...

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Note what *work* asks for without doing it; return what does it all at once.

        Raises RuntimeError for what cannot be recorded.
        """
        ...


class Context(Protocol):
    """One optimisation profile of a plan."""

    def bind(self, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> None:
        """Set the shapes of all inputs and the addresses of all inputs and outputs."""
        ...

    def enqueue(self) -> None:
        """Run once on what is bound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to build."""

    model: onnx.ModelProto
    folder: Path | None
    """Where the weights are that lie beside the graph."""
    profiles: tuple[Shapes, ...]
    streaming: bool
    """Weights may stay in the host's memory."""
    timings: bytes | memoryview = b""
    """From an earlier build; empty: none."""


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what was measured for it."""

    plan: memoryview
    timings: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A plan on the card."""

    prefill: Context
    decode: Context
    away_bytes: int
    """Weights that stay in the host's memory."""


class Maker(Protocol):
    """Builds plans for one card, and loads them."""

    @property
    def device(self) -> Device:
        """The card."""
        ...

    def about(self) -> plans.Card:
        """Return what plans depend on."""
        ...

    def free_bytes(self) -> int:
        """Return how much of the card's memory nobody has."""
        ...

    def build(self, task: Task, progress: Progress) -> Built:
        """Build a plan: minutes. Raises ConfigError with the reason, or what stopped it."""
        ...

    def load(self, content: memoryview, room_bytes: int) -> Loaded:
        """Load a plan of two profiles; weights that can stream stay within *room_bytes*.

        Raises ConfigError for a plan that does not load, MemoryError.
        """
        ...
