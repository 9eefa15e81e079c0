"""What stops a model process before it serves."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from services.kit.config import FleetConfig, Model, Pace, Replica
from services.kit.errors import ConfigError
from services.model import process
from services.model.backends.paced import Paced
from tests.unit.services.model import tiny


def settings(folder: Path, *, context_tokens: int = 0) -> Model:
    """Configure the checkpoint in *folder*."""
    replicas = (Replica(listen="127.0.0.1:0"),)
    return Model(name="tiny", dir=str(folder), context_tokens=context_tokens, replicas=replicas)


@pytest.mark.parametrize("context_tokens", [1, tiny.CONTEXT_TOKENS + 1])
def test_a_context_must_hold_something_and_be_the_models(
    tmp_path: Path, context_tokens: int
) -> None:
    """Positions beyond training give nonsense, so they are refused."""
    tiny.write(tmp_path)
    with pytest.raises(ConfigError, match=f"context_tokens = {context_tokens} must be from 16"):
        process.load(settings(tmp_path, context_tokens=context_tokens), "tiny-0")


def test_a_shorter_context_saves_cache(tmp_path: Path) -> None:
    """The cache is as long as configured, and so is what callers are told."""
    tiny.write(tmp_path)
    model, backend = process.load(settings(tmp_path, context_tokens=32), "tiny-0")
    assert model.context_tokens == backend.context_tokens == 32


def test_a_model_can_be_given_a_pace(tmp_path: Path) -> None:
    """It holds what it held before, and is slower."""
    tiny.write(tmp_path)
    paced = msgspec.structs.replace(settings(tmp_path, context_tokens=32), pace=Pace(step_s=0.01))
    _, backend = process.load(paced, "tiny-0")
    assert isinstance(backend, Paced)
    assert backend.context_tokens == 32


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """Its tokens would be read from beyond the embedding."""
    tiny.write(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["surplus"] = len(content["model"]["vocab"]) + 3
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="both must come from one model"):
        process.load(settings(tmp_path), "tiny-0")


async def test_a_replica_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    """The message counts those that are."""
    config = FleetConfig(models=(settings(tmp_path),))
    with pytest.raises(ConfigError, match="'tiny' has 1 replicas, no number 1"):
        await process.serve(config, "tiny", 1)


def test_a_runtime_that_is_not_installed_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet for a GPU, started where TensorRT is not."""
    tiny.write(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    chosen = msgspec.structs.replace(settings(tmp_path), runtime="tensorrt")
    with pytest.raises(ConfigError, match=r"needs TensorRT 11 .*pip install 'zeta\[tensorrt\]'"):
        process.load(chosen, "tiny-0")
