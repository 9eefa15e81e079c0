"""What a request costs the router while many wait for a place: processor time and decisions.

python -m tests.bench.bench_admission [--requests N]

The router's own code in virtual time (`tests.bench.virtual`), before one replica of four slots that
5 requests can be at: so many callers ask again and again, and all but 5 of them wait. gRPC is left
out; `bench_router` has it. Each number of callers is measured in turn, several times; the least
counts.
"""

import argparse
import asyncio
from contextlib import aclosing
from pathlib import Path
from time import process_time
from typing import Final

import msgspec

from services.kit import config as kit_config
from services.kit import log
from services.kit.aio import all_of
from services.kit.config import FleetConfig
from tests.bench.virtual.loop import VirtualLoop
from tests.bench.virtual.recorded import Given, Row
from tests.bench.virtual.world import World

CALLERS: Final = (4, 16, 64, 256)
_ROUNDS: Final = 3
_GIVEN: Final = Given(text="4", right=True, tokens=4, prompt_tokens=8, mean_logprob=-0.1)


def fleet() -> FleetConfig:
    """Return a fleet of one model with one replica, where many may wait."""
    config = kit_config.load(Path("config/bench.toml"))
    first, replace = config.models[0], msgspec.structs.replace
    model = replace(first, name="m", max_running=4, replicas=first.replicas[:1])
    router = replace(config.router, max_queued=max(CALLERS))
    return replace(config, models=(model,), router=router, devices=())


def cost_ms(config: FleetConfig, callers: int, requests: int) -> float:
    """Return the processor time of one of *requests*, in milliseconds."""
    row = Row(prompt="What is 2 + 2?", kind="general", family="sum", answers={"m": _GIVEN})

    async def main() -> float:
        world, left = World(config, 0), iter(range(requests))

        async def caller() -> None:
            for _ in left:
                async with aclosing(world.routed(row, None)) as events:
                    async for _event in events:
                        pass

        async with world.running():
            began_s = process_time()
            await all_of(*(caller() for _ in range(callers)))
            return process_time() - began_s

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return 1e3 * runner.run(main()) / requests


def main() -> None:
    """Measure, and print a row for each number of callers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, metavar="N")
    requests = parser.parse_args().requests
    log.configure("bench", "error")
    config = fleet()
    rounds = [[cost_ms(config, callers, requests) for callers in CALLERS] for _ in range(_ROUNDS)]
    for callers, found in zip(CALLERS, zip(*rounds, strict=True), strict=True):
        print(f"{callers:4} callers: {min(found):.2f} ms of processor time a request")


if __name__ == "__main__":
    main()
