"""Compiled modules decide as plain ones do, and never shadow a source that has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import router_svc
from router_svc import compiled
from tests.unit.router_svc.decided import DECISIONS

ROOT = Path(router_svc.__file__).resolve().parent.parent
LOOK = "from router_svc import compiled; print(compiled.used())"


def python(
    *arguments: str, wanted: str = "", root: Path = ROOT
) -> "subprocess.CompletedProcess[str]":
    """Run Python in a checkout, with compiled modules as *wanted*."""
    paths = os.pathsep.join([str(root), str(ROOT), str(ROOT / "protos" / "gen")])
    environment = {**os.environ, "PYTHONPATH": paths, "ZETA_COMPILED": wanted}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The router alone, without anything compiled."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "router_svc", tmp_path / "router_svc", ignore=ignored)
    return tmp_path


def test_compiled_and_plain_decide_alike_bit_for_bit() -> None:
    """Every plan's figures and chances, and what is refused, over many random decisions."""
    if not compiled.folder().is_dir():
        assert os.environ.get("ZETA_COMPILED") != "1"
        pytest.skip("nothing is compiled: `make compiled`")
    fast, slow = (python("-m", "tests.unit.router_svc.decided", wanted=how) for how in "10")
    assert fast.stdout.startswith("compiled "), fast.stderr
    assert slow.stdout.startswith("plain "), slow.stderr
    assert fast.stdout.split()[1:] == slow.stdout.split()[1:]
    refused = int(slow.stdout.split()[2])
    assert 0 < refused < DECISIONS / 2


def test_a_source_that_changed_is_not_shadowed(checkout: Path) -> None:
    """What was compiled is used as long as no source of the core changes, and no longer."""
    built = compiled.folder(checkout, checkout / ".compiled")
    assert built.name == compiled.folder().name
    built.mkdir(parents=True)
    assert python("-c", LOOK, root=checkout).stdout == "True\n"
    source = checkout / "router_svc" / "core" / "scorers.py"
    source.write_text(source.read_text().replace("1.0", "1.5"))
    assert python("-c", LOOK, root=checkout).stdout == "False\n"


def test_it_can_be_done_without_and_asked_for(checkout: Path) -> None:
    """`ZETA_COMPILED` says so; who asks for what is not there learns how to get it."""
    assert python("-c", LOOK, root=checkout).stdout == "False\n"
    asked = python("-c", LOOK, wanted="1", root=checkout)
    assert asked.returncode != 0
    assert "run `make compiled`" in asked.stderr
    compiled.folder(checkout, checkout / ".compiled").mkdir(parents=True)
    assert python("-c", LOOK, wanted="0", root=checkout).stdout == "False\n"
