"""Load in virtual time: repeatable, complete, and as the recorded answers have it."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from services.kit.config import FleetConfig, load
from services.kit.errors import ConfigError
from tests.bench.virtual import recorded, report
from tests.bench.virtual.loop import VirtualLoop
from tests.bench.virtual.recorded import Given, Row
from tests.bench.virtual.replica import Replica
from tests.bench.virtual.run import Found, Load, run
from zeta_client.load import ways
from zeta_client.load.arrivals import Arrival
from zeta_client.load.figures import Objective
from zeta_client.load.options import KINDS
from zeta_client.load.send import OK

CONFIG = load(Path(__file__).parents[3] / "config" / "bench.toml")
ABLE = {"code": "coder-7b", "reasoning": "reasoner-14b", "general": "general-4b"}
ARRIVALS, EVERY_S = 80, 0.04


def rows() -> list[Row]:
    """Prompts of each kind, that one model answers right and the others wrong."""
    found = []
    for n in range(30):
        kind = KINDS[n % 3]
        answers = {
            model: Given(
                text="yes" if model == ABLE[kind] else "no",
                right=model == ABLE[kind],
                tokens=8 + n,
                prompt_tokens=20,
                mean_logprob=-0.01 if model == ABLE[kind] else -1.0,
            )
            for model in ABLE.values()
        }
        row = Row(prompt=f"{kind} number {n}", kind=kind, family=kind, answers=answers)
        found.append(row)
    return found


def once(seed: int, config: FleetConfig = CONFIG) -> Found:
    """Three seconds of more load than there is capacity for."""
    asked = Load(
        arrivals=[Arrival(at_s=EVERY_S * i) for i in range(ARRIVALS)],
        mix={"reasoning": 3.0, "code": 1.0, "general": 1.0},
        deadline_s=2.0,
        returns=1,
        returning=1.0,
        warm_up=12,
        seed=seed,
    )
    chosen = ways.parse_all(["balanced", "balanced:p2c", "static:least_request"], config)
    return run(config, rows(), chosen, asked)


def test_the_same_seed_gives_the_same_run() -> None:
    """To the last decision; another seed gives another."""
    assert once(1) == once(1)
    assert once(1) != once(2)


def test_every_request_has_its_end() -> None:
    """In time, too late or refused; right or wrong as recorded, and fixed routing never wrong."""
    found = once(3)
    told = report.summary([found], Objective(total_s=2.0), EVERY_S * ARRIVALS)

    assert set(found.runs) == {"balanced", "balanced:p2c", "static:least_request"}
    assert len(found.idle) == ARRIVALS
    for results in found.runs.values():
        assert [r.at_s for r in results] == [EVERY_S * i for i in range(ARRIVALS)]
        assert all((r.model == ABLE[r.kind]) == r.right for r in results if r.status == OK)
        assert all(r.total_s <= 2.0 + 1e-6 for r in results)
        assert 0 < sum(r.status == OK for r in results) < ARRIVALS
    assert told["static:least_request"]["right_ratio"] == 1.0
    assert told["balanced"]["shed"].keys() <= {
        "OVERLOADED", "DEADLINE_PASSED", "PREDICTED_DEADLINE_MISS",
    }  # fmt: skip


def test_who_leaves_takes_the_work_along() -> None:
    """A replica goes on with nothing whose caller went away or ran out of time."""
    given = rows()[0].answers["coder-7b"]
    replica = Replica(next(m for m in CONFIG.models if m.name == "coder-7b"))

    async def ask() -> None:
        async with aclosing(replica.generate(given)) as events:
            async for _ in events:
                assert replica.server.requests <= 1

    async def main() -> list[int]:
        async with aclosing(replica.generate(given)) as events:
            await anext(events)
            seen = [replica.server.requests]
        seen.append(replica.server.requests)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(), 0.1)
        seen.append(replica.server.requests)
        await ask()
        return [*seen, replica.server.requests]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) == [1, 0, 0, 0]


def test_what_was_not_recorded_is_refused(tmp_path: Path) -> None:
    """Plans whose calls see more than the prompt, models that were not asked, files of others."""
    replace = msgspec.structs.replace
    policy = replace(CONFIG.router.policies["balanced"], plans=())
    router = replace(CONFIG.router, policies={"balanced": policy})
    with pytest.raises(ConfigError, match=r"balanced\.plans permits best_of, refine"):
        once(1, replace(CONFIG, router=router))

    file = tmp_path / "rows.json"
    recorded.write(file, rows())
    assert recorded.read(file, CONFIG) == rows()
    recorded.write(file, [replace(row, answers={}) for row in rows()])
    with pytest.raises(ConfigError, match="no answers of coder-7b, general-4b"):
        recorded.read(file, CONFIG)
    recorded.write(file, rows()[:5])
    with pytest.raises(ConfigError, match="a half has no general prompt"):
        recorded.read(file, CONFIG)
    file.write_text("[1]")
    with pytest.raises(ConfigError, match="not what `record` writes"):
        recorded.read(file, CONFIG)
