"""Our engine beside others, on the same weights, in one run.

    python -m tests.bench.bench_peers WORK_DIR --peer-python PYTHON [--builder-python PYTHON]

Makes a random checkpoint of Qwen2.5-0.5B's dimensions in WORK_DIR and converts it for each engine,
unless that is there already. The peers run in their own interpreter, and one that is not installed
there is left out; converting for them needs PyTorch and transformers (and optimum-intel and nncf
for OpenVINO), in the same interpreter or in --builder-python.

Cases: one sequence, tokens per second after the first of 128 + 64, median of three; and 16
requests that arrive over four seconds, with prompts of 32 to 256 and answers of 16 to 128 tokens.
Every round runs every engine once, one after the other, each in a process of its own; figures are
medians over rounds.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from services.model import importer
from tests.bench import random_checkpoint

PEERS = {"genai": "onnxruntime_genai", "openvino": "openvino_genai"}
CASES = ("decode-int4", "decode-fp32", "serve-int4", "serve-fp32")
ROUNDS = 1

Figures = dict[str, Any]


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--builder-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--prepare", action="store_true", help="convert, and measure nothing")
    arguments = parser.parse_args()
    engines = {"zeta": sys.executable} | {
        name: arguments.peer_python for name in PEERS if _has(arguments.peer_python, PEERS[name])
    }
    for absent in PEERS.keys() - engines.keys():
        print(f"{absent}: not installed in {arguments.peer_python}, left out", file=sys.stderr)
    prepare(arguments.folder, engines, arguments.builder_python or arguments.peer_python)
    if arguments.prepare:
        return
    for case in arguments.cases:
        print("\n".join(_table(case, measure(arguments, engines, case))), flush=True)


def prepare(folder: Path, engines: dict[str, str], builder: str) -> None:
    """Make what is missing: a checkpoint, and a model of it for each engine and precision."""
    source = folder / "hf"
    if not source.exists():
        random_checkpoint.write(source)
    for precision in ("int4", "fp32"):
        for engine in engines:
            target = folder / engine / precision
            if target.exists():
                continue
            print(f"converting for {engine}, {precision}", file=sys.stderr)
            target.parent.mkdir(exist_ok=True)
            if engine == "zeta":
                importer.convert(source, target, precision, threads=2)
            else:
                _call(builder, engine, "build", str(source), str(target), precision)


def measure(
    arguments: argparse.Namespace, engines: dict[str, str], case: str
) -> dict[str, list[Figures]]:
    """Return what each engine printed, a round after the other."""
    kind, precision = case.split("-")
    out: dict[str, list[Figures]] = {engine: [] for engine in engines}
    for _ in range(arguments.rounds):
        for engine, python in engines.items():
            model = arguments.folder / engine / precision
            said = _call(python, engine, kind, str(model), "--threads", str(arguments.threads))
            out[engine].append(json.loads(said.splitlines()[-1]))
    return out


def _call(python: str, engine: str, *arguments: str) -> str:
    module = f"tests.bench.peers.{engine}"
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "protos" / "gen")]
    done = subprocess.run(
        [python, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=True, cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    return done.stdout


def _has(python: str, module: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def _table(case: str, found: dict[str, list[Figures]]) -> list[str]:
    names = [n for n in ("tokens_per_s", "ttft_p50_s", "ttft_p99_s") if n in found["zeta"][0]]
    middle = {e: {n: median(r[n] for r in rounds) for n in names} for e, rounds in found.items()}
    lines = [case]
    for engine, rounds in found.items():
        figures = "  ".join(f"{n} {v:8.3f}" for n, v in middle[engine].items())
        ratio = middle["zeta"]["tokens_per_s"] / middle[engine]["tokens_per_s"]
        spread = " ".join(f"{r['tokens_per_s']:.1f}" for r in rounds)
        said = rounds[0]["versions"]
        lines.append(f"  {said:<44}{figures}  zeta {ratio:.2f}x  ({spread})")
    return lines


if __name__ == "__main__":
    main()
