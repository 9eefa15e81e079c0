"""A backup is asked where the first model is silent for too long, in a running fleet."""

from pathlib import Path

import msgspec
from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.config import FleetConfig, Pace, Policy
from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import running

PROMPT = "In Python, what is 'rocket'.index('t')?"
SLOW = "coder-7b"
SLOWLY = Pace(prefill_s_per_token=0.5)
SILENT_S = 5.0
"""The slow model is silent for longer: prompt and template have more than ten tokens."""


def hedged(config: FleetConfig) -> FleetConfig:
    """Hedges alone, paid for as often as they are asked for; the coder is slow to begin.

    Every profile has its time: by the text alone another model may look better.
    """
    policy = Policy(plans=("hedge",), explore_ratio=0.0)
    router = msgspec.structs.replace(
        config.router,
        policies={"balanced": policy},
        max_extra_load=1.0,
        profile_timeout_s=TIMEOUT_S,
    )
    models = tuple(
        msgspec.structs.replace(model, pace=SLOWLY) if model.name == SLOW else model
        for model in config.models
    )
    server = msgspec.structs.replace(config.server, drain_grace_s=0.5)
    return msgspec.structs.replace(config, router=router, models=models, server=server)


async def test_a_backup_answers_for_a_model_that_is_silent(tmp_path: Path) -> None:
    """Long before it would have begun; whoever was asked is told of, and one answer was chosen."""
    asked = question(PROMPT)
    asked.task_kind = TaskKind.TASK_KIND_CODE
    asked.preference.explain = True
    with running(tmp_path, hedged) as fleet:
        async with fleet.channel(fleet.router) as channel:
            got = await answer(InferenceServiceStub(channel).Generate(asked, timeout=TIMEOUT_S))

    plan = got.finished.decision.plan.hedge
    assert plan.primary == SLOW
    assert got.started.plan.startswith(f"hedge({SLOW}")
    assert {step.model for step in got.finished.steps} == {SLOW, plan.backup}
    assert [step.model for step in got.finished.steps if step.chosen] == [plan.backup]
    assert got.finished.model == plan.backup
    assert got.finished.timings.total.ToSeconds() < SILENT_S
