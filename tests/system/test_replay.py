"""What a live router journaled is enough to decide again."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from zeta.router.v1.router_service_pb2 import SubmitFeedbackRequest
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub

from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import ZETA, Fleet, eventually
from zeta_client.tasks import generate, is_correct

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

PROMPTS = 60


def replayed(fleet: Fleet, *options: str) -> tuple[int, dict[str, object]]:
    """Run `zeta replay` on the fleet's journal."""
    journal = Path(fleet.config.fleet.state_dir) / fleet.config.router.journal
    done = subprocess.run(
        [ZETA, "replay", journal, "--json", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.stdout, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return done.returncode, found


@pytest.fixture
async def answered(router: "InferenceServiceAsyncStub", fleet: Fleet) -> int:
    """Ask a few prompts and judge the answers; return how many there were."""
    async with fleet.channel(fleet.router) as channel:
        judge = RouterServiceStub(channel)

        async def one(n: int) -> None:
            task = generate(PROMPTS, split="demo", seed=5)[n]
            asked = question(task.prompt, max_tokens=200)
            asked.preference.policy = ("fast", "balanced", "quality")[n % 3]
            said = await answer(router.Generate(asked, timeout=TIMEOUT_S))
            await judge.SubmitFeedback(
                SubmitFeedbackRequest(
                    decision_id=said.started.decision_id, score=float(is_correct(task, said.text))
                ),
                timeout=TIMEOUT_S,
            )

        await asyncio.gather(*(one(n) for n in range(PROMPTS)))
    return PROMPTS


async def test_every_decision_is_made_again_bit_for_bit(fleet: Fleet, answered: int) -> None:
    """All plans, propensities and expectations that are in the journal, whoever asked."""
    written: dict[str, object] = {}

    async def all_there() -> bool:
        code, found = await asyncio.to_thread(replayed, fleet, "--check")
        written.update(found, code=code)
        return int(str(found["decisions"])) >= answered

    await eventually(all_there, 20.0, "decisions in the journal")
    assert written["differing"] == {}
    assert written["code"] == 0


async def test_another_policy_is_judged_on_them(fleet: Fleet, answered: int) -> None:
    """The policy that was in force most is estimated near what was scored."""
    code, found = await asyncio.to_thread(replayed, fleet, "--policy", "balanced")
    assert code == 0
    assert int(str(found["decisions"])) >= answered
    logged, dr = found["logged"], found["dr"]
    assert isinstance(logged, dict)
    assert isinstance(dr, dict)
    assert dr["low"] - 0.3 < logged["value"] < dr["high"] + 0.3
