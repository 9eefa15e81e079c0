"""The real TensorRT API on a machine without TensorRT.

`tensorrt-cu13-bindings` is the whole Python API, and needs three libraries only when it is loaded.
Empty ones that define the functions which it imports let it load; nothing of TensorRT can run.
"""

import ast
import ctypes
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
MODULES = ("tensorrt_bindings.tensorrt", "cuda.bindings.runtime")


def missing() -> str:
    """Say what this machine lacks for it; empty where nothing is missing."""
    tools = [name for name in ("cc", "nm") if not shutil.which(name)]
    packages = [name for name in ("tensorrt_bindings", "cuda") if not find_spec(name)]
    return ", ".join([*tools, *packages])


def libraries(folder: Path) -> Path:
    """Compile the empty libraries into *folder*, and a `tensorrt` package as its wheel has it."""
    spec = find_spec("tensorrt_bindings")
    assert spec is not None
    assert spec.origin is not None
    bindings = Path(spec.origin).with_name("tensorrt.so")
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in needed(bindings)))
    for name in LIBRARIES:
        target = folder / f"lib{name}.so.11"
        _run("cc", "-shared", "-fPIC", "-o", str(target), str(source))
    package = folder / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    return folder


def needed(bindings: Path) -> list[str]:
    """Return the functions that *bindings* import, and neither Python nor the C library has."""
    listed = _run("nm", "--dynamic", "--undefined-only", str(bindings))
    here = ctypes.CDLL(None)
    names = [line.split()[-1] for line in listed.splitlines() if " U " in line]
    return [name for name in names if "@" not in name and not hasattr(here, name)]


def typed(folder: Path, environment: dict[str, str]) -> Path:
    """Write type stubs of both APIs, as they say they are, into *folder*."""
    modules = [argument for name in MODULES for argument in ("-m", name)]
    subprocess.run(
        [Path(sys.executable).with_name("stubgen"), "--inspect-mode", "-q", *modules, "-o", folder],
        check=True, env=environment, timeout=120,
    )  # fmt: skip
    for name in MODULES:
        _mend((folder / name.replace(".", "/")).with_suffix(".pyi"))
    package = folder / "tensorrt"
    package.mkdir()
    (package / "__init__.pyi").write_text(
        "from tensorrt_bindings.tensorrt import *\n__version__: str\n"
    )
    return folder


def _mend(stub: Path) -> None:
    """Let signatures that are no Python (one, in TensorRT 11.4) take any arguments.

    What else is odd in a stub is not what is checked.
    """
    lines = stub.read_text().splitlines()
    while (wrong := _wrong_line(lines)) is not None:
        lines[wrong] = re.sub(r"def (\w+)\(.*", r"def \1(self, *args, **kwargs): ...", lines[wrong])
    stub.write_text("\n".join(["# mypy: ignore-errors", *lines]))


def _wrong_line(lines: list[str]) -> int | None:
    try:
        ast.parse("\n".join(lines))
    except SyntaxError as error:
        return (error.lineno or 1) - 1
    return None


def _run(tool: str, *arguments: str) -> str:
    """Run a tool of the C compiler's and return what it says."""
    path = shutil.which(tool)
    assert path is not None
    done = subprocess.run(
        [path, *arguments], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout
