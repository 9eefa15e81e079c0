"""Whatever is done to a checkpoint, an import is whole or refused in words."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kit.errors import ConfigError
from services.model import importer
from services.model.graph import manifest, shards
from tests.unit.services.model import tiny

SHARD = "model-00001-of-00002.safetensors"
FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("model.safetensors.index.json", SHARD),
)
SLOWLY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "a"]), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in two shards that is in order."""
    changes = {"max_position_embeddings": 32, "num_hidden_layers": 1}
    folder = tiny.write(tmp_path_factory.mktemp("fuzz") / "hf", shards=2, changes=changes)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2], "do_sample": false}')
    return folder


@contextmanager
def copied(whole: Path) -> Iterator[Path]:
    """Yield a copy to damage, alone in a directory."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(shutil.copytree(whole, Path(made) / "hf"))


def import_or_refuse(source: Path) -> bool:
    """Import; check that there is a whole model, or none and a reason. Return which."""
    target = source.parent / "out"
    try:
        found = importer.convert(source, target, "int4")
    except ConfigError:
        assert {path.name for path in source.parent.iterdir()} == {"hf"}
        return False
    manifest.verify(target, found, weights=True)
    assert np.isfinite(found.check.cosine)
    return True


def test_the_checkpoint_itself_is_imported(whole: Path) -> None:
    """The damage is all that is wrong in the tests below."""
    with copied(whole) as source:
        assert import_or_refuse(source)


def test_weights_cut_off_at_any_byte_are_refused(whole: Path, tmp_path: Path) -> None:
    """Wherever a download broke off: every byte of the header, and many of the data."""
    content = (whole / SHARD).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / SHARD
    for size in [*range(header + 1), *range(header + 1, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ConfigError, match=f"{SHARD}: cannot be read"):
            shards.header(path)


@SLOWLY
@given(data=st.data())
def test_a_file_cut_off_is_imported_whole_or_not_at_all(whole: Path, data: st.DataObject) -> None:
    """Any file, at any byte."""
    name = data.draw(st.sampled_from(FILES))
    with copied(whole) as source:
        content = (source / name).read_bytes()
        size = data.draw(st.integers(0, len(content) - 1))
        (source / name).write_bytes(content[:size])
        assert not import_or_refuse(source) or name.endswith("config.json")


@SLOWLY
@given(data=st.data())
def test_flipped_bytes_are_imported_whole_or_not_at_all(whole: Path, data: st.DataObject) -> None:
    """A few bytes of any file; half of the damage goes into the first kilobyte."""
    name = data.draw(st.sampled_from(FILES))
    with copied(whole) as source:
        content = bytearray((source / name).read_bytes())
        last = data.draw(st.sampled_from([min(1024, len(content)), len(content)])) - 1
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, last))
            content[at] = data.draw(st.integers(0, 255))
        (source / name).write_bytes(content)
        import_or_refuse(source)


@SLOWLY
@given(data=st.data())
def test_headers_that_lie_are_refused_or_harmless(whole: Path, data: st.DataObject) -> None:
    """Well-formed JSON with any type, shape or place."""
    with copied(whole) as source:
        content = (source / SHARD).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header: dict[str, Any] = json.loads(content[8 : 8 + length])
        name = data.draw(st.sampled_from(sorted(header)))
        key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        dtypes = st.sampled_from(["F16", "BF16", "F32", "I8", "F8_E4M3", "Q4"])
        header[name][key] = data.draw(dtypes if key == "dtype" else VALUES)
        encoded = json.dumps(header).encode()
        (source / SHARD).write_bytes(
            len(encoded).to_bytes(8, "little") + encoded + content[8 + length :]
        )
        import_or_refuse(source)


@SLOWLY
@given(data=st.data())
def test_configurations_that_lie_are_refused_or_harmless(whole: Path, data: st.DataObject) -> None:
    """Well-formed JSON with any value of any key."""
    file = data.draw(st.sampled_from(["config.json", "generation_config.json"]))
    with copied(whole) as source:
        content = json.loads((source / file).read_text())
        extra = ["rope_scaling", "rope_parameters", "sliding_window", "hidden_act", "temperature"]
        key = data.draw(st.sampled_from([*sorted(content), *extra]))
        content[key] = data.draw(VALUES)
        (source / file).write_text(json.dumps(content))
        import_or_refuse(source)
