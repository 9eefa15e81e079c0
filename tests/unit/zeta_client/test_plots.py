"""What every plot needs, said before any work is done."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from zeta_client import plots


def test_says_what_stands_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name's end, the folder, the package; nothing where a plot could be written."""
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    assert plots.trouble(tmp_path / "a.png", install="matplotlib") == ""
    assert ".png, .svg, .pdf" in plots.trouble(tmp_path / "a.txt", install="matplotlib")
    assert "no such folder" in plots.trouble(tmp_path / "no" / "a.png", install="matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plots.trouble(tmp_path / "a.png", install="x y").endswith("pip install x y")
