"""What the backend asks of a card, and of a plan on it.

`nvidia` answers with TensorRT and CUDA. Tests answer with ONNX Runtime and NumPy, so that all that
is decided here (addresses, buckets, profiles, moves) runs without a card. Addresses are integers;
all work is done in the order in which it was asked for, in one stream.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

Sizes = tuple[int, ...]


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
        """Note what *work* asks for without doing it; return what does it all at once."""
        ...


class Context(Protocol):
    """One optimisation profile of a plan."""

    def bind(self, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> None:
        """Set the shapes of all inputs and the addresses of all inputs and outputs."""
        ...

    def enqueue(self) -> None:
        """Run once on what is bound."""
        ...
