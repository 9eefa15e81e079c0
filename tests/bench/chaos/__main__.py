"""A fleet under load while everything but one router is killed, stopped, restarted and cut off.

    python -m tests.bench.chaos [--minutes 10] [--per-s 3] [--every-s 3] [--seed 7] [--keep DIR]

Requests come at their own pace, greedy, so that the right answers are known. Exit code 1 where a
stream broke a law of `answers`, a request that the router took on was lost, or the router's memory
(unique set size) or open files at the end (median of the last third) are not what they were on the
plateau (of the second third).
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.bench.chaos.run import NEAR, SOME_FILES, Found, Plan, run


def report(found: Found) -> bool:
    """Print what happened, and say whether it was well."""
    wrong, broken = list(found.faults()), found.broken()
    for line in wrong[:50]:
        print("WRONG", line)
    for stream in broken[:50]:
        print(f"BROKEN {stream.name}: {stream.error}")
    memory, files = found.thirds(found.memory_mb), found.thirds(found.files)
    handed = sum(any(e.HasField("handover") for e in s.events) for s in found.streams)
    told = {
        "acts": dict(sorted(found.acts.items())),
        "requests": len(found.streams),
        "ends": dict(sorted(found.ends.items())),
        "refused_of_free_choice": sum(s.model == "" and not s.begun for s in found.streams),
        "handed_over": handed,
        "accepted": dict(sorted(found.accepted.items())),
        "wrong": len(wrong),
        "broken": len(broken),
        "lost": found.lost(),
        "memory_mb": [round(mb, 1) for mb in (*memory, max(found.memory_mb))],
        "files": [*files, max(found.files)],
    }
    print(json.dumps(told, indent=2))
    flat = abs(memory[1] - memory[0]) <= NEAR * memory[0] and files[1] <= files[0] + SOME_FILES
    return not wrong and not broken and not found.lost() and flat


def main() -> None:
    """Break, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--per-s", type=float, default=3.0)
    parser.add_argument("--every-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="a new folder for logs and journals")
    its = parser.parse_args()
    # Whoever is told to end stops what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(seconds=its.minutes * 60, per_s=its.per_s, every_s=its.every_s, seed=its.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = its.keep or Path(place)
        for name in ("fleet", "router"):
            (folder / name).mkdir(parents=True)
        well = report(asyncio.run(run(folder, plan)))
    sys.exit(not well)


if __name__ == "__main__":
    main()
