"""What a machine without a card is told. The backend's laws: tests/laws/test_backends.py."""

from pathlib import Path

import onnxruntime
import pytest

from services.kit.config import FleetConfig, Model, Replica
from services.kit.errors import ConfigError
from services.model import importer, process
from services.model.backends.cuda import _PROVIDERS
from tests.unit.services.model import tiny

without_provider = pytest.mark.skipif(
    _PROVIDERS["cuda"] in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is here"
)


@without_provider
def test_without_the_provider_the_start_says_what_to_install(tmp_path: Path) -> None:
    """The message names the package and what it replaces."""
    importer.convert(tiny.write(tmp_path / "hf"), tmp_path / "model", "fp16")
    with pytest.raises(ConfigError, match="needs onnxruntime-gpu; it takes the place of"):
        process.load(_on_card(tmp_path / "model"), "m/0")


def test_a_model_in_float32_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    """A card computes in 16 bits, and the message says how to import for it."""
    with pytest.raises(ConfigError, match="import it with --precision"):
        process.load(_on_card(tiny.write(tmp_path)), "m/0")


def _on_card(folder: Path) -> Model:
    model = Model(
        name="m", dir=str(folder), device="cuda", replicas=(Replica(listen="127.0.0.1:1"),)
    )
    return FleetConfig(models=(model,)).models[0]
