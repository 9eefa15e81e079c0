"""Fetching checkpoints, from a hub on this machine."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.kit.errors import ConfigError, UnavailableError
from services.model.graph import checkpoint
from tests.unit.services.model import tiny
from tests.unit.zeta_client.hub_server import COMMIT, REPO, Hub, serving
from zeta_client import hub as fetching
from zeta_client.cli.app import app

OTHERS = {
    "pytorch_model.bin": b"pickled",
    "original/consolidated.safetensors": b"another form",
    "README.md": b"about",
    "evil.py": b"import os",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint in two shards."""
    return tiny.write(tmp_path / "hf", shards=2)


@pytest.fixture
def hub(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds it, and what should not be fetched."""
    files = {file.name: file.read_bytes() for file in source.iterdir()}
    with serving(Hub(files | OTHERS)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def test_what_is_fetched_is_what_a_server_reads(hub: Hub, source: Path, tmp_path: Path) -> None:
    """The same bytes, without pickles, code and other forms of the weights."""
    told = list[tuple[str, int, int]]()
    assert set(hub.files) > set(OTHERS)
    target = tmp_path / "out"
    found = fetching.pull(REPO, target, revision="v1", progress=lambda *of: told.append(of))
    assert found.commit == COMMIT
    names = {file.name for file in source.iterdir()}
    assert {file.name for file in target.iterdir()} == {*names, fetching.RECORD}
    assert all((target / name).read_bytes() == (source / name).read_bytes() for name in names)
    assert json.loads((target / fetching.RECORD).read_text())["commit"] == COMMIT
    assert {name for name, done, total in told if done == total} == names
    assert checkpoint.load(target).parameters == checkpoint.load(source).parameters
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupted_fetch_goes_on_where_it_was(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing usable is there before; what was fetched is not fetched again."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 16)
    shard = max(name for name in hub.files if name.endswith("02.safetensors"))
    target, size = tmp_path / "out", len(hub.files[shard])
    hub.breaks_after[shard] = size // 2
    with pytest.raises(UnavailableError, match=shard):
        fetching.pull(REPO, target)
    assert not target.exists()
    part = tmp_path / "out.partial" / f"{shard}.part"
    assert part.stat().st_size == size // 2
    hub.breaks_after.clear()
    hub.asked.clear()
    fetching.pull(REPO, target)
    assert (target / shard).read_bytes() == hub.files[shard]
    assert (shard, f"bytes={size // 2}-") in hub.asked
    assert len({name for name, _ in hub.asked} & {"config.json", "tokenizer.json"}) == 0


def test_a_wrong_checksum_is_noticed(hub: Hub, tmp_path: Path) -> None:
    """The file is thrown away, so that the next try can be right."""
    hub.lies.add("config.json")
    with pytest.raises(UnavailableError, match=r"config\.json came with another checksum"):
        fetching.pull(REPO, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fetching.pull(REPO, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == hub.files["config.json"]


@pytest.mark.parametrize(
    ("repo", "revision", "says"),
    [
        ("someone/else", "main", "the hub knows none"),
        (REPO, "v9", "the hub knows none"),
        ("no good name", "main", "names no repository"),
        ("../up", "main", "names no repository"),
    ],
)
def test_what_is_not_there_is_said(
    hub: Hub, tmp_path: Path, repo: str, revision: str, says: str
) -> None:
    """In one sentence, and nothing is left."""
    assert hub.address
    with pytest.raises(ConfigError, match=says):
        fetching.pull(repo, tmp_path / "out", revision=revision)
    assert not list(tmp_path.glob("out*"))


def test_a_gated_repository_says_how_to_get_in(hub: Hub, tmp_path: Path) -> None:
    """Its terms, and the token."""
    hub.gated = True
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        fetching.pull(REPO, tmp_path / "out")


def test_pickled_weights_alone_are_refused(hub: Hub, tmp_path: Path) -> None:
    """Before anything is fetched."""
    hub.files = {"config.json": b"{}", **OTHERS}
    with pytest.raises(ConfigError, match="no safetensors"):
        fetching.pull(REPO, tmp_path / "out")
    assert not hub.asked


def test_a_hub_that_does_not_answer_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be there again later."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UnavailableError, match=REPO):
        fetching.pull(REPO, tmp_path / "out")


def test_the_command_tells_what_comes_next(hub: Hub, tmp_path: Path) -> None:
    """And with --json, what was fetched; a directory that exists is left alone."""
    assert hub.address
    zeta, place = CliRunner(), str(tmp_path / "out")
    shown = zeta.invoke(app, ["model", "pull", REPO, place])
    assert shown.exit_code == 0, shown.output
    assert "next: zeta model import" in shown.stdout
    again = zeta.invoke(app, ["model", "pull", REPO, place, "--json"])
    assert (again.exit_code, again.stdout) == (1, "")
    assert "exists already" in again.stderr
    other = ["model", "pull", REPO, f"{place}2", "--also", "README.md", "--json"]
    assert json.loads(zeta.invoke(app, other).stdout)["files"]["README.md"] == 5


def test_without_its_library_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"zeta\[hub\]"):
        fetching.pull(REPO, tmp_path / "out")
