"""What becomes of answers: verified, preferred, kept with consent, exported."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Literal

import grpc
import msgspec
import pytest
from typer.testing import CliRunner
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.router.v1 import router_service_pb2 as router_pb

from services.kit import config as kit_config
from services.kit.config import Policy, Telemetry
from tests.contract.router_fakes import (
    FakeModel,
    World,
    asking,
    read,
    routed,
    saying,
    world,
)
from zeta_client.cli.app import app


async def judged(ready: World, request: inference_pb.GenerateRequest, score: float | None) -> str:
    """Ask, give a score, and return the decision's id."""
    started, _, _ = await read(ready.inference.Generate(request))
    if score is not None:
        await ready.router.SubmitFeedback(
            router_pb.SubmitFeedbackRequest(decision_id=started.decision_id, score=score)
        )
    return started.decision_id


def exported(folder: Path, ready: World, *options: str) -> list[dict[str, object]]:
    """Run `zeta export` on the world's journal."""
    apart = msgspec.structs.replace(ready.config, telemetry=Telemetry(listen="127.0.0.1:2"))
    (folder / "fleet.toml").write_bytes(kit_config.dump(apart))
    out = folder / "out.jsonl"
    command = ["export", str(out), "--config", str(folder / "fleet.toml"), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in out.read_text().splitlines()]


async def test_only_what_callers_consented_to_is_kept_and_exported(tmp_path: Path) -> None:
    """With its score and model; the rest never reaches the disk."""
    async with world(tmp_path, FakeModel("a", [saying("four")])) as ready:
        messages = inference_pb.Conversation(
            messages=[inference_pb.Message(role=inference_pb.ROLE_USER, content="2 + 2?")]
        )
        said = inference_pb.GenerateRequest(messages=messages, consent_to_train=True)
        kept = await judged(ready, said, 1.0)
        await judged(ready, asking("what is 1 + 3?", consent_to_train=True), 0.2)
        await judged(ready, asking("unjudged", consent_to_train=True), None)
        await judged(ready, asking("private"), 1.0)
        await ready.router.SubmitFeedback(
            router_pb.SubmitFeedbackRequest(decision_id=kept, score=0.5, feedback_id="later")
        )
    rows = exported(tmp_path, ready)
    assert [(r["prompt"], r["answer"], r["score"], r["model"]) for r in rows] == [
        ([{"role": "user", "content": "2 + 2?"}], "four", 0.75, "a"),
        ("what is 1 + 3?", "four", 0.2, "a"),
    ]
    assert len(exported(tmp_path, ready, "--min-score", "0.5")) == 1
    assert exported(tmp_path, ready, "--model", "b") == []
    assert exported(tmp_path, ready, "--since", "2999-01-01") == []
    journal = kit_config.state_dir(ready.config) / ready.config.router.journal
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT COUNT(*) FROM texts").fetchone() == (3,)
        assert "private" not in "".join(db.iterdump())


async def test_texts_are_forgotten_with_their_decisions(tmp_path: Path) -> None:
    """What is older than `router.journal_keep_days` is not exported, nor left in the file."""
    async with world(tmp_path, FakeModel("a", [saying("four")])) as ready:
        old = await judged(ready, asking("an old secret", consent_to_train=True), 1.0)
        new = await judged(ready, asking("a new question", consent_to_train=True), 1.0)
    journal = kit_config.state_dir(ready.config) / ready.config.router.journal
    kept_s = ready.config.router.journal_keep_days * 86_400.0
    with closing(sqlite3.connect(journal)) as db, db:
        aged = (time.time() - kept_s - 60.0, old)
        db.execute("UPDATE decisions SET time_s = ? WHERE id = ?", aged)
    async with routed(ready.config) as again:
        # The journal does one thing after the other, and forgetting is what a start begins with.
        await again.router.SubmitFeedback(
            router_pb.SubmitFeedbackRequest(decision_id=new, score=0.5, feedback_id="later")
        )
        assert [row["prompt"] for row in exported(tmp_path, again)] == ["a new question"]
    assert b"a new question" in journal.read_bytes()
    assert b"an old secret" not in journal.read_bytes()


async def test_consent_can_be_withdrawn(tmp_path: Path) -> None:
    """One decision's texts are deleted, once; its score stays learned."""
    async with world(tmp_path, FakeModel("a", [saying("four")])) as ready:
        kept = await judged(ready, asking("keep this", consent_to_train=True), 1.0)
        gone = await judged(ready, asking("drop this", consent_to_train=True), 1.0)
        wanted = router_pb.ForgetTextsRequest(decision_id=gone)
        first = await ready.router.ForgetTexts(wanted)
        second = await ready.router.ForgetTexts(wanted)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ready.router.ForgetTexts(router_pb.ForgetTextsRequest())
        assert [row["decision_id"] for row in exported(tmp_path, ready)] == [kept]
    assert (first.forgotten, second.forgotten) == (True, False)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    journal = kit_config.state_dir(ready.config) / ready.config.router.journal
    assert b"drop this" not in journal.read_bytes()
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT COUNT(*) FROM feedback").fetchone() == (2,)


async def test_token_ids_cannot_be_consented_to(tmp_path: Path) -> None:
    """They are no text."""
    async with world(tmp_path, FakeModel("a")) as ready:
        ids = inference_pb.TokenIds(ids=[1, 2])
        request = inference_pb.GenerateRequest(token_ids=ids, model="a", consent_to_train=True)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read(ready.inference.Generate(request))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_router_verifies_on_request(tmp_path: Path) -> None:
    """It says the score, learns from it, and refuses what is no verifier."""
    async with world(tmp_path, FakeModel("a")) as ready:
        started, text, _ = await read(ready.inference.Generate(asking()))
        wanted = router_pb.Verification(verifier="exact", answer=text, reference="four")
        said = await ready.router.SubmitFeedback(
            router_pb.SubmitFeedbackRequest(decision_id=started.decision_id, verification=wanted)
        )
        wanted.verifier = "guess"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ready.router.SubmitFeedback(
                router_pb.SubmitFeedbackRequest(
                    decision_id=started.decision_id, verification=wanted
                )
            )
    assert (said.counted, said.score) == (True, 1.0)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("plan", "asked"), [("refine", 2), ("best_of", 2), ("vote", 3), ("cascade", 1)]
)
async def test_every_plan_runs_over_the_wire(
    tmp_path: Path, plan: Literal["refine", "best_of", "vote", "cascade"], asked: int
) -> None:
    """Each kind that a policy permits alone answers, and says in its steps who took part."""
    fakes = [FakeModel(name) for name in "abc"]
    policy = Policy(explore_ratio=0.0, max_calls=3, plans=(plan,))
    async with world(tmp_path, *fakes, policy=policy) as ready:
        started, text, finished = await read(ready.inference.Generate(asking()))
    assert text == "four"
    assert started.plan.startswith(plan)
    assert sum(len(fake.requests) for fake in fakes) >= asked
    assert [s.chosen for s in finished.steps].count(True) == 1
    assert all(s.part and s.end for s in finished.steps)


async def test_a_reviewer_is_shown_the_draft_as_a_turn(tmp_path: Path) -> None:
    """In a form that chat models know: the draft as the assistant's, the wish as the user's."""
    fakes = [FakeModel("a"), FakeModel("b")]
    policy = Policy(explore_ratio=0.0, max_calls=2, plans=("refine",))
    async with world(tmp_path, *fakes, policy=policy) as ready:
        messages = inference_pb.Conversation(
            messages=[inference_pb.Message(role=inference_pb.ROLE_USER, content="2 + 2?")]
        )
        await read(ready.inference.Generate(inference_pb.GenerateRequest(messages=messages)))
    (reviewed,) = [r for f in fakes for r in f.requests if len(r.messages.messages) == 3]
    roles = [m.role for m in reviewed.messages.messages]
    assert roles == [inference_pb.ROLE_USER, inference_pb.ROLE_ASSISTANT, inference_pb.ROLE_USER]
    assert reviewed.messages.messages[1].content == "four"
