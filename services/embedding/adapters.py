"""The file of learned adapters: which encoder they are for, and a direction per model.

Written by `zeta eval outcomes --adapters`, read once when an embedding process starts.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.embedding.core.adapter import Floats
from services.kit.errors import ConfigError
from services.kit.files import write_whole

FORMAT: Final = "zeta adapters"
VERSION: Final = 1
_TOLERANCE: Final = 1e-3


def write(path: Path, models: Sequence[str], directions: Floats, *, encoder_sha256: str) -> None:
    """Save a direction (M, D) per model, whole or not at all. Raises OSError."""
    file = io.BytesIO()
    np.savez(
        file,
        format=np.array(FORMAT),
        version=np.array(VERSION),
        encoder=np.array(encoder_sha256),
        models=np.array(models, dtype=np.str_),
        directions=directions.astype(np.float32),
    )
    write_whole(path, file.getvalue())


def read(path: str, *, encoder_sha256: str, dimensions: int) -> Mapping[str, Floats]:
    """Return directions (D,) by model; none where *path* is empty.

    Raises ConfigError for what is no such file, or one for another encoder.
    """
    if not path:
        return {}
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as archive:
            return _checked(archive, encoder_sha256, dimensions)
    except OSError as error:
        raise ConfigError(f"embedding.adapters: {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"embedding.adapters: {path}: {error}; make it with "
            "`zeta eval outcomes FILE --adapters OUT.npz`, or leave the key out"
        ) from error


def _checked(
    arrays: Mapping[str, NDArray[Any]], encoder_sha256: str, dimensions: int
) -> Mapping[str, Floats]:
    if str(arrays["format"]) != FORMAT:
        raise ValueError("no file of adapters")
    if int(arrays["version"]) != VERSION:
        raise ValueError(f"of version {arrays['version']}, not {VERSION}")
    if str(arrays["encoder"]) != encoder_sha256:
        theirs = str(arrays["encoder"])[:16]
        raise ValueError(f"learned for encoder {theirs}, and this is {encoder_sha256[:16]}")
    models, directions = arrays["models"].tolist(), arrays["directions"].astype(np.float32)
    if directions.shape != (len(models), dimensions):
        raise ValueError(f"directions of shape {directions.shape}, not {(len(models), dimensions)}")
    lengths = np.linalg.norm(directions, axis=1)
    if not np.all((lengths < _TOLERANCE) | (np.abs(lengths - 1.0) < _TOLERANCE)):
        raise ValueError("a direction's length is neither 0 nor 1")
    # A direction of length 0 is the identity: the caller is told so.
    return {m: d for m, d, some in zip(models, directions, lengths > 0.0, strict=True) if some}
