"""Reading Hugging Face directories, and saying clearly what is wrong with them."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from services.kit.errors import ConfigError
from services.model.graph import checkpoint
from tests.unit.services.model import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to be damaged."""
    return tiny.write(tmp_path / "tiny")


def configure(folder: Path, **changes: object) -> None:
    """Change keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_is_read_as_float32(folder: Path) -> None:
    """Every weight is there, in the precision that is computed in."""
    stored = checkpoint.load(folder)
    assert {w.dtype for w in stored.weights.values()} == {np.dtype(np.float32)}
    assert stored.parameters == sum(
        w.size for w in load_file(folder / "model.safetensors").values()
    )
    assert stored.stop_ids == {stored.shape.vocabulary - 1}
    assert stored.temperature == 0


def test_bfloat16_is_read(folder: Path) -> None:
    """Most published weights are stored so."""
    path = folder / "model.safetensors"
    save_file({k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(path).items()}, path)
    stored = checkpoint.load(folder)
    assert {w.dtype for w in stored.weights.values()} == {np.dtype(np.float32)}


def test_generation_defaults_win_over_the_configuration(folder: Path) -> None:
    """Several ends of text, and the temperature that the makers sample at."""
    defaults = {"eos_token_id": [3, 4], "do_sample": True, "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(defaults))
    stored = checkpoint.load(folder)
    assert stored.stop_ids == {3, 4}
    assert stored.temperature == 0.6


def test_weights_may_be_in_several_files(folder: Path) -> None:
    """Large checkpoints come in shards."""
    whole = checkpoint.load(folder)
    weights = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    save_file(dict(weights[:5]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(weights[5:]), folder / "model-00002-of-00002.safetensors")
    assert checkpoint.load(folder).parameters == whole.parameters


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The message holds the path and the key to correct."""
    with pytest.raises(ConfigError, match=r"nowhere: no such model directory; correct `dir`"):
        checkpoint.load(tmp_path / "nowhere")


def test_another_architecture_is_refused_by_name(folder: Path) -> None:
    """And the message says which there are."""
    configure(folder, model_type="mamba")
    with pytest.raises(
        ConfigError,
        match=r"model_type 'mamba' is not supported; supported: llama, mistral, qwen2, qwen3",
    ):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": None}, "missing or wrong"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4}}, "rope scaling"),
        ({"sliding_window": -3}, "sliding_window = -3"),
        ({"attention_bias": True}, "attention_bias = true"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"hidden_size": 64}, r"is \(.*\), config\.json says"),
        ({"num_hidden_layers": 3}, r"weights are missing, model\.layers\.2"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    """A wrong answer is worse than none."""
    configure(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("used", "tokens"), [({}, 40), ({"use_sliding_window": False}, tiny.CONTEXT_TOKENS)]
)
def test_a_sliding_window_is_the_context(
    folder: Path, used: dict[str, object], tokens: int
) -> None:
    """Up to its length every token sees all others, so that nothing is computed wrongly."""
    configure(folder, sliding_window=40, **used)
    assert checkpoint.load(folder).shape.context_tokens == tokens


def test_damaged_files_are_named(folder: Path) -> None:
    """A truncated download says which file to fetch again."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"model\.safetensors: cannot be read"):
        checkpoint.load(folder)
    path.unlink()
    with pytest.raises(ConfigError, match=r"no \*\.safetensors"):
        checkpoint.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: not JSON"):
        checkpoint.load(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"config\.json: a JSON object is expected"):
        checkpoint.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json: No such file"):
        checkpoint.load(folder)
