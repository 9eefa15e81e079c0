"""A model directory of either kind, imported or as it came, ready for a backend."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from services.kit.errors import ConfigError
from services.model.graph import checkpoint, decoder, manifest
from services.model.graph.checkpoint import Shape
from services.model.graph.decoder import Precision
from services.model.graph.dialects import DialectName

_MOST_INSIDE_BYTES = 2**31 - 2**26
"""Protocol buffers end at 2 GiB; the graph without its weights is small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """A graph and what a server has to know of it."""

    shape: Shape
    graph: onnx.ModelProto | Path
    precision: Precision
    parameters: int
    stop_ids: frozenset[int]
    temperature: float
    """What the model's makers sample at; 0: greedy."""


def load(folder: Path, dialect: DialectName = "ort") -> Runnable:
    """Read *folder* for the runtime of *dialect*.

    Raises ConfigError that says what is wrong with it and what to do.
    """
    read = _imported if manifest.is_imported(folder) else _as_it_came
    return read(folder, dialect)


def _imported(folder: Path, dialect: DialectName) -> Runnable:
    found = manifest.read(folder)
    manifest.refuse_other(folder, found, dialect)
    manifest.verify(folder, found)
    config = checkpoint.read_json(folder / "config.json")
    shape = checkpoint.shape_of(config, folder / "config.json")
    stop_ids, temperature = checkpoint.habits(folder, config)
    return Runnable(
        shape=shape,
        graph=folder / manifest.GRAPH,
        precision=found.precision,
        parameters=checkpoint.parameters(shape),
        stop_ids=stop_ids,
        temperature=temperature,
    )


def _as_it_came(folder: Path, dialect: DialectName) -> Runnable:
    stored = checkpoint.load(folder)
    if 4 * stored.parameters > _MOST_INSIDE_BYTES:
        raise ConfigError(
            f"{folder}: {stored.parameters / 1e9:.1f} billion parameters are too many to convert "
            f"at every start; do it once: zeta model import HF_DIR OUT_DIR --dialect {dialect}"
        )
    return Runnable(
        shape=stored.shape,
        graph=decoder.build(stored, dialect=dialect),
        precision="fp32",
        parameters=stored.parameters,
        stop_ids=stored.stop_ids,
        temperature=stored.temperature,
    )
