"""One device shared: slots that follow the mix against a fixed split, on real processes.

Code and reasoning alternate, one heavy while the other is light; `config/share.toml` and the same
models with a third of the slots each meet the same requests, one after the other.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from services.kit import config
from services.kit.config import FleetConfig

ROOT = Path(__file__).parents[2]
KINDS = ("code", "reasoning")
PER_TRACE = 4000


def main() -> None:
    """Run both and print what was answered in time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=9.0)
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds of each kind")
    parser.add_argument("--deadline", type=float, default=4.0)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shared = config.load(ROOT / "config" / "share.toml")
    with TemporaryDirectory() as folder:
        traces = [_trace(Path(folder), k, options) for k in range(len(KINDS))]
        for name, fleet in (("fixed", fixed(shared)), ("shared", shared)):
            file = Path(folder) / f"{name}.toml"
            file.write_bytes(config.dump(fleet))
            found = _bench(file, traces, options)
            print(
                f"{name:8} good/s {found['goodput_per_s']:6.2f}   right "
                f"{found['right_ratio']:.3f}   good and right/s "
                f"{found['good_and_right_per_s']:6.2f}   p50 {found['total_s']['p50']:.2f} s   "
                f"p99 {found['total_s']['p99']:.2f} s   of {found['requests']}"
            )


def fixed(shared: FleetConfig) -> FleetConfig:
    """The same models, each with its part of the slots for ever."""
    (device,) = shared.devices
    each = device.slots // len(shared.models)
    models = tuple(msgspec.structs.replace(m, max_running=each) for m in shared.models)
    return msgspec.structs.replace(shared, devices=(), models=models)


def _trace(folder: Path, k: int, options: argparse.Namespace) -> str:
    """Write arrivals of kind number *k*: heavy in its turns, a tenth of that in the others'."""
    rng = np.random.default_rng(100 + k)
    at_s = np.sort(rng.random(PER_TRACE) * options.duration)
    mine = (at_s // options.every) % len(KINDS) == k
    kept = at_s[mine | (rng.random(PER_TRACE) < 0.1)]
    lines = [f"{t:.4f},0,0" for t in (0.0, *kept.tolist(), options.duration)]
    file = folder / f"{KINDS[k]}.csv"
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n")
    return f"{KINDS[k]}={file}"


def _bench(file: Path, traces: list[str], options: argparse.Namespace) -> dict[str, Any]:
    command = ["bench", "--start", "--json", "--config", str(file)]
    command += [part for trace in traces for part in ("--trace", trace)]
    for name in ("rate", "duration", "deadline", "seed", "warm_up"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    zeta = Path(sys.executable).with_name("zeta")
    done = subprocess.run([zeta, *command], stdout=subprocess.PIPE, check=True)
    (found,) = json.loads(done.stdout)["runs"].values()
    return dict(found)


if __name__ == "__main__":
    main()
