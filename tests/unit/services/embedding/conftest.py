"""The real encoder, converted once per run."""

from pathlib import Path

import pytest

from services.embedding.encoder import OnnxEncoder, load
from services.kit.config import Embedding


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    """Load the installed all-MiniLM-L6-v2 in 8 bits."""
    cache: Path = tmp_path_factory.mktemp("cache")
    return load(Embedding(), cache)
