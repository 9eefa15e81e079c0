"""What every plot that a command draws needs."""

from importlib import import_module
from pathlib import Path
from typing import Final

_KINDS: Final = (".png", ".svg", ".pdf")


def trouble(path: Path, *, install: str) -> str:
    """Say why no plot could be written to *path*, before any work is done; empty: it could.

    *install* names the packages that the command needs for it.
    """
    try:
        import_module("matplotlib")
    except ImportError:
        return f"--plot needs matplotlib: pip install {install}"
    if path.suffix not in _KINDS:
        return f"--plot {path}: the name must end with one of {', '.join(_KINDS)}"
    if not path.resolve().parent.is_dir():
        return f"--plot {path}: there is no such folder; make it first"
    return ""
