"""Use the part of the core that was compiled ahead of time, where it was: `make compiled`.

The .py files are the truth. What is built lies in a folder whose name is made of all of the core's
sources and of the interpreter it was built for: once either changes, nobody finds it any more, and
plain Python runs again. Both compute the same, bit for bit, at different speed.
ZETA_COMPILED=0 does without what is compiled; 1 refuses to start without it.
"""

import os
import sys
import sysconfig
from hashlib import blake2b
from pathlib import Path
from typing import Final

from router_svc import core

MODULES: Final = (
    *("loads", "load", "latency", "shadow", "balance", "predict"),
    *("clip", "hedging", "scorers", "spread"),
    *("option", "voting", "plans", "price", "menu", "decide"),
)
"""Of the core: what handles plain numbers, most of all. Arrays are NumPy's business either way."""
ROOT: Final = Path(__file__).resolve().parent.parent
BUILT: Final = ROOT / ".compiled"


def folder(sources: Path = ROOT, built: Path = BUILT) -> Path:
    """Return where modules compiled from the core below *sources* lie, or would."""
    seen = blake2b(digest_size=12)
    for path in [*sorted((sources / "router_svc" / "core").glob("*.py")), Path(__file__)]:
        text = path.read_bytes()
        seen.update(f"{path.name} {len(text)}\n".encode() + text)
    return built / f"{sysconfig.get_config_var('SOABI')}-{seen.hexdigest()}"


def use() -> None:
    """Have the core's modules imported from where they were compiled, if they were.

    Raises ImportError where they have to be, and are not.
    """
    wanted = os.environ.get("ZETA_COMPILED", "")
    if wanted == "0":
        return
    there = folder() if BUILT.is_dir() else None
    if there is not None and there.is_dir():
        sys.path.append(str(there))  # the library that all of them share
        core.__path__.insert(0, str(there / "router_svc" / "core"))
    elif wanted == "1":
        raise ImportError("ZETA_COMPILED=1: the present core is not compiled: run `make compiled`")


def used() -> bool:
    """Whether compiled modules decide in this process."""
    return len(core.__path__) > 1
