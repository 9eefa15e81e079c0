"""How well times are foreseen: `python -m tests.bench.bench_latency`.

The pocket fleet, or with `--config` another one, under a load that goes up and down; the share of
answers that came within the predicted 90 % quantile, as the router's own metrics have it, once it
has warmed up. Goal: 85 to 95 %.
"""

import argparse
import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from services.kit.config import FleetConfig, load
from zeta_client.async_client import AsyncClient
from zeta_client.cli.shell import default_config
from zeta_client.cli.up import started
from zeta_client.fleet.processes import in_state_dir, on_free_ports
from zeta_client.load import arrivals, options, ways
from zeta_client.load.send import send
from zeta_client.load.shots import shots

QUANTITIES = ("ttft", "total")


def main() -> None:
    """Print coverage by model and quantity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=default_config())
    parser.add_argument("--rate", type=float, default=12.0)
    parser.add_argument("--warm", type=float, default=20.0, help="seconds that do not count")
    parser.add_argument("--duration", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    seen = asyncio.run(measured(asked))
    print(f"{'':16}{'quantity':>9}{'answers':>9}{'within p90':>12}")
    for model in sorted({model for model, _, _ in seen}):
        for quantity in QUANTITIES:
            within, above = (seen[model, quantity, w] for w in ("true", "false"))
            if within + above:
                share = within / (within + above)
                print(f"{model:16}{quantity:>9}{within + above:9.0f}{share:12.3f}")


async def measured(asked: argparse.Namespace) -> Counter[tuple[str, str, str]]:
    """Count predictions by model, quantity and whether they held, without the warm-up's."""
    with tempfile.TemporaryDirectory() as folder:
        config = in_state_dir(on_free_ports(_with_metrics(load(asked.config))), Path(folder))
        async with started(config), AsyncClient(config.router.listen) as router:
            await _loaded(router, config, asked, asked.warm, asked.seed)
            before = await asyncio.to_thread(counted, config.router.metrics)
            await _loaded(router, config, asked, asked.duration, asked.seed + 1)
            after = await asyncio.to_thread(counted, config.router.metrics)
    return Counter({key: count - before[key] for key, count in after.items()})


def counted(address: str) -> Counter[tuple[str, str, str]]:
    """Read the counters of predictions."""
    with urlopen(f"http://{address}/metrics") as page:
        text = page.read().decode()
    return Counter(
        {
            (
                s.labels["gen_ai_request_model"],
                s.labels["quantity"],
                s.labels["within_p90"],
            ): s.value
            for family in text_string_to_metric_families(text)
            if family.name == "zeta_router_predictions"
            for s in family.samples
            if s.name.endswith("_total")
        }
    )


async def _loaded(
    router: AsyncClient, config: FleetConfig, asked: argparse.Namespace, for_s: float, seed: int
) -> None:
    """Load the fleet with all kinds of tasks, three times the rate in every fourth second."""
    rng = np.random.default_rng(seed)
    burst = arrivals.Burst(factor=3.0, every_s=4.0, for_s=1.0)
    questions = shots(
        arrivals.bursts(asked.rate, for_s, burst, rng),
        mix=dict.fromkeys(options.KINDS, 1.0),
        priorities={"standard": 1.0},
        seed=seed,
        rng=rng,
        length_ratio=0.0,
        tokens_per_word=1.0,
    )
    way = ways.parsed(config.router.default_policy, config)
    async with contextlib.AsyncExitStack() as opened:
        call = await ways.call(way, config, router, opened)
        await send(questions, call, deadline_s=None)


def _with_metrics(config: FleetConfig) -> FleetConfig:
    replace = msgspec.structs.replace
    return replace(config, router=replace(config.router, metrics="127.0.0.1:0"))


if __name__ == "__main__":
    main()
