"""Compile what decides: the modules of the router's core that handle plain numbers, with mypyc.

Into a folder of their own (`router_svc.compiled` says where), from where they are imported instead
of the .py files as long as no source of the core changes. Without a C compiler nothing is built,
and plain Python decides, which is no error.

python tools/compile_core.py
"""

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

os.environ["ZETA_COMPILED"] = "0"

from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

from router_svc.compiled import BUILT, MODULES, ROOT, folder

_FLAGS: Final = ("-ffp-contract=off", "-Wno-error")
"""No fused multiply-add: a journal is replayed alike on every processor."""


def build() -> Path:
    """Compile the modules, unless they are, and return where they lie; earlier ones go."""
    final = folder()
    if final.is_dir():
        return final
    BUILT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as work:
        made = Path(work) / "made"
        _compile(made, Path(work))
        made.rename(final)
    for other in BUILT.glob(f"{sysconfig.get_config_var('SOABI')}-*"):
        if other != final:
            shutil.rmtree(other)
    return final


def _compile(made: Path, work: Path) -> None:
    os.chdir(ROOT)
    extensions = mypycify(
        [f"router_svc/core/{name}.py" for name in MODULES],
        debug_level="0",
        group_name="zeta_core",
        target_dir=str(work / "c"),
    )
    for extension in extensions:
        extension.extra_compile_args += _FLAGS
    command = build_ext(Distribution({"name": "zeta_core", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(made), str(work / "objects")
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler.split()[0]) is None or not headers.is_file():
        print("no C compiler, or no Python.h: what decides stays plain Python", file=sys.stderr)
        sys.exit()
    print(f"compiled: {build().relative_to(ROOT)}")
