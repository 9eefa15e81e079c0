"""A model directory of either kind, imported or as it came, ready for a backend."""

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from services.kit.errors import ConfigError
from services.model.graph import checkpoint, decoder, encoder, manifest
from services.model.graph.checkpoint import Shape
from services.model.graph.decoder import Precision
from services.model.graph.dialects import DialectName
from services.model.graph.encoder import Encoder

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
    encoder: Encoder | None = None
    """How to make one vector of a text, where the makers say so."""


def load(folder: Path, dialect: DialectName = "ort") -> Runnable:
    """Read *folder* for the runtime of *dialect*.

    Raises ConfigError that says what is wrong with it and what to do.
    """
    read = _imported if manifest.is_imported(folder) else _as_it_came
    return read(folder, dialect)


def load_generator(folder: Path) -> Runnable:
    """Read *folder*, a model that generates. Raises ConfigError as `load`, and for an encoder."""
    found = load(folder)
    if found.shape.headless:
        raise ConfigError(f"{folder}: this model has no output projection: it embeds only")
    return found


def _imported(folder: Path, dialect: DialectName) -> Runnable:
    found = manifest.read(folder)
    manifest.refuse_other(folder, found, dialect)
    manifest.verify(folder, found)
    config = checkpoint.read_json(folder / "config.json")
    shape = checkpoint.shape_of(config, folder / "config.json")
    found_encoder = encoder.read(folder) if encoder.FILE in found.files else None
    stop_ids, temperature = checkpoint.habits(folder, config)
    return Runnable(
        shape=replace(shape, headless=found.headless),
        graph=folder / manifest.GRAPH,
        precision=found.precision,
        parameters=checkpoint.parameters(replace(shape, headless=found.headless)),
        stop_ids=stop_ids,
        temperature=temperature,
        encoder=found_encoder,
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
        encoder=stored.encoder,
    )
