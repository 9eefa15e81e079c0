"""What Zeta calls of TensorRT and CUDA exists, and is called as it is defined.

Nothing here runs TensorRT: that is for tests/gpu, on a machine with a GPU.
"""

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.model.backends import trt
from tests.contract import nvidia_stubs

PACKAGE = Path(trt.__file__).parent
SOURCES = [PACKAGE / f"{name}.py" for name in ("engine", "card", "build", "maker")]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    bool(nvidia_stubs.missing()), reason=f"not installed: {nvidia_stubs.missing()}"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `import tensorrt` is the real API."""
    folder = nvidia_stubs.libraries(tmp_path_factory.mktemp("libraries"))
    path = os.pathsep.join((str(folder), str(ROOT), str(ROOT / "protos" / "gen")))
    return os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": path}


@pytest.fixture(scope="module")
def stubs(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Types of both APIs, made from the APIs themselves."""
    return nvidia_stubs.typed(tmp_path_factory.mktemp("stubs"), environment)


def mistakes(sources: list[Path], stubs: Path) -> str:
    """Check *sources* against the types of the real APIs; return what is wrong."""
    found = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml",
            "--cache-dir", stubs / ".cache", "--follow-imports", "silent",
            "--no-warn-unused-ignores", *sources,
        ],
        cwd=ROOT, env=os.environ | {"MYPYPATH": str(stubs)},
        check=False, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    return "" if found.returncode == 0 else found.stdout + found.stderr


def test_our_calls_of_tensorrt_fit_its_api(stubs: Path) -> None:
    """Names, methods, properties, enumerations, arguments: as the real bindings define them."""
    assert mistakes(SOURCES, stubs) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("execute_async_v3(", "execute_async_v4("),
        ("set_tensor_address(name, address)", "set_tensor_address(address, name)"),
        (
            "ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE",
            "ExecutionContextAllocationStrategy.X",
        ),
        ("cuda.cudaGraphLaunch(", "cuda.cudaGraphStart("),
        ("BuilderFlag.TF32", "BuilderFlag.FP16"),
    ],
)
def test_a_wrong_call_would_be_found(right: str, wrong: str, stubs: Path, tmp_path: Path) -> None:
    """The check of the test above can fail."""
    (source,) = [text for path in SOURCES if right in (text := path.read_text())]
    broken = tmp_path / "broken.py"
    broken.write_text(source.replace(right, wrong))
    assert "broken.py" in mistakes([broken], stubs)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_our_calls_of_cuda_fit_its_api(source: Path) -> None:
    """CUDA's functions carry no types: their names and the number of arguments are checked here."""
    from cuda.bindings import runtime  # noqa: PLC0415 - where it is not installed this is skipped

    tree = ast.parse(source.read_text())
    for node in ast.walk(tree):
        if path := _name(node):
            _resolved(runtime, path)
        if isinstance(node, ast.Call) and (path := _name(node.func)):
            called = _resolved(runtime, path)
            if inspect.isroutine(called) or inspect.isfunction(called):
                inspect.signature(called).bind(*node.args)


def test_cuda_is_called_at_all() -> None:
    """The check of the test above has something to look at."""
    tree = ast.parse(SOURCES[1].read_text())
    assert len({path for node in ast.walk(tree) if (path := _name(node))}) > 20


SCRIPT = """
import json, sys
from services.kit.config import TensorRT
from services.kit.errors import ConfigError
from services.model.backends.trt import build, card, engine
import tensorrt as trt

told = []
monitor = build.Monitor(lambda *what: told.append(what))
assert isinstance(monitor, trt.IProgressMonitor)
monitor.phase_start("Building engine", None, 3)
monitor.phase_start("one layer", "Building engine", 1)
going = [monitor.step_complete("one layer", 0), monitor.step_complete("Building engine", 1)]
monitor.phase_finish("one layer")
def stop(*_): raise KeyboardInterrupt
monitor._progress = stop
going.append(monitor.step_complete("Building engine", 2))
said = engine.Log()
said.log(trt.ILogger.ERROR, "no kernel image")
said.log(trt.ILogger.INFO, "chatter")
try:
    card.Card(0)
except ConfigError as error:
    refused = str(error)
print(json.dumps({"told": told, "going": going, "stopped": repr(monitor.stopped_by),
                  "reason": said.reason(), "refused": refused, "version": trt.__version__}))
"""


def test_what_derives_from_tensorrt_works(environment: dict[str, str]) -> None:
    """Progress, logging and the missing card, with the real classes of TensorRT and CUDA."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["told"] == [
        ["building: Building engine", 0, 3],
        ["building: Building engine", 2, 3],
    ]
    assert found["going"] == [True, True, False]
    assert found["stopped"] == "KeyboardInterrupt()"
    assert found["reason"] == "no kernel image"
    assert found["refused"].startswith("no NVIDIA GPU can be used here")
    assert found["version"].startswith("11.")


def _name(node: ast.AST) -> tuple[str, ...]:
    """Return the path of `cuda.a.b`, the first name left out; empty for anything else."""
    parts = list[str]()
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    ours = isinstance(node, ast.Name) and node.id == "cuda"
    return tuple(reversed(parts)) if ours and parts else ()


def _resolved(module: object, path: tuple[str, ...]) -> object:
    """Follow *path*, up to an enumeration's member: what comes behind that is Python's."""
    for part in path:
        module = getattr(module, part)
    return module
