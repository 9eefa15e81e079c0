"""`zeta bench` against a real fleet."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.system.fleet import ZETA, Fleet


async def bench(fleet: Fleet, *options: str) -> dict[str, object]:
    """Run the program to its end; return its JSON."""
    running = await asyncio.create_subprocess_exec(
        ZETA, "bench", "--config", str(Path(fleet.config.fleet.state_dir) / "fleet.toml"),
        "--json", *options, stdout=subprocess.PIPE, stderr=sys.stderr,
    )  # fmt: skip
    out, _ = await running.communicate()
    assert running.returncode == 0
    found: dict[str, object] = json.loads(out)
    return found


async def test_every_way_answers_the_same_requests(fleet: Fleet) -> None:
    """A policy, one with another balancer, fixed models and no router at all, in one run."""
    ways = "balanced,balanced:p2c,static:round_robin,only:coder-7b,all:peak_ewma"
    found = await bench(
        fleet, "--rate", "10", "--duration", "2", "--slo-total", "20", "--compare", ways,
        "--warm-up", "4", "--seed", "3",
    )  # fmt: skip
    runs = found["runs"]
    assert isinstance(runs, dict)

    assert list(runs) == ways.split(",")
    asked = {run["requests"] for run in runs.values()}
    assert len(asked) == 1
    assert asked.pop() > 5
    for run in runs.values():
        assert run["answered"] == run["good"] == run["requests"], run["shed"]
        assert 0.0 < run["ttft_s"]["p50"] <= run["total_s"]["p99"]
    assert list(runs["only:coder-7b"]["by_model"]) == ["coder-7b"]
    assert set(runs["static:round_robin"]["by_plan"]) == {"single"}


async def test_a_trace_is_replayed_with_its_lengths(fleet: Fleet, tmp_path: Path) -> None:
    """Answers are exactly as long as the trace has them, scaled; what misses its time is shed."""
    file = tmp_path / "trace.csv"
    rows = "".join(f"{i / 10},200,100\n" for i in range(11))
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    found = await bench(
        fleet, "--trace", f"code={file}", "--rate", "2.2", "--duration", "5",
        "--length-ratio", "0.1", "--deadline", "30",
    )  # fmt: skip
    assert isinstance(found["runs"], dict)
    run = found["runs"]["balanced"]

    assert run["requests"] == run["answered"] == 11
    assert run["right_ratio"] is None
    assert found["slo"] == {"ttft_s": None, "total_s": 30.0}
