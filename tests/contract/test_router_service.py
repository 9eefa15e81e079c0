"""The router's services over real gRPC, before scripted models."""

from pathlib import Path

from tests.contract.router_fakes import FakeModel, asking, read, saying, world


async def test_an_answer_streams_through(tmp_path: Path) -> None:
    """The client gets the model's text, with the router's decision, plan and cost."""
    coder = FakeModel("coder", [saying("four", parts=2)])
    async with world(tmp_path, coder) as ready:
        started, text, finished = await read(ready.inference.Generate(asking()))
    assert text == "four"
    assert started.plan == "single(coder)"
    assert started.replica == "coder-0"
    assert started.prompt_tokens == 7
    assert started.decision_id
    assert finished.model == "coder"
    assert finished.cost_usd == 7 * 1e-6 + 2 * 2e-6
    assert [step.chosen for step in finished.steps] == [True]
