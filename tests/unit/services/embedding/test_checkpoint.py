"""Reading a sentence-transformers directory."""

import json
from pathlib import Path

import pytest

from services.embedding.checkpoint import open_checkpoint, read_weights
from services.embedding.core.pooling import first, mean
from services.kit.errors import ConfigError
from tests.unit.services.embedding import tiny


def test_a_directory_is_read(tmp_path: Path) -> None:
    """Shape, pooling and limits are those of its files."""
    checkpoint = open_checkpoint(str(tiny.write(tmp_path)))

    assert (checkpoint.shape.layers, checkpoint.shape.heads) == (tiny.LAYERS, tiny.HEADS)
    assert checkpoint.max_positions == tiny.POSITIONS
    assert checkpoint.pool is mean


def test_cls_pooling_is_understood(tmp_path: Path) -> None:
    """The first token's vector, where the model was trained so."""
    folder = tiny.write(tmp_path, pooling="pooling_mode_cls_token")

    assert open_checkpoint(str(folder)).pool is first


def test_names_lose_the_prefix_of_larger_checkpoints(tmp_path: Path) -> None:
    """`bert.encoder…` and `encoder…` are the same weight."""
    checkpoint = open_checkpoint(str(tiny.write(tmp_path, prefix="bert.")))

    assert "embeddings.word_embeddings.weight" in read_weights(checkpoint)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"model_type": "roberta"}, "model_type is 'roberta'"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "'Dense'"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ("1_Pooling/config.json", {}, "pooling"),
    ],
)
def test_what_would_give_other_vectors_is_refused(
    tmp_path: Path, file: str, content: object, message: str
) -> None:
    """An architecture that is not understood stops the start, and its name is said."""
    tiny.write(tmp_path)
    (tmp_path / file).write_text(json.dumps(content))

    with pytest.raises(ConfigError, match=message):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "file", ["config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"]
)
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    """So that whoever gave the wrong directory sees it."""
    (tiny.write(tmp_path) / file).unlink()

    with pytest.raises(ConfigError, match=file):
        open_checkpoint(str(tmp_path))


def test_damage_is_named(tmp_path: Path) -> None:
    """JSON that is none and weights that are none are mistakes in the configuration."""
    checkpoint = open_checkpoint(str(tiny.write(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        read_weights(checkpoint)

    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        open_checkpoint(str(tmp_path))
