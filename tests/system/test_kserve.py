"""The real tritonclient before a whole fleet."""

from tests.contract.triton import started
from tests.system.fleet import Fleet

QUESTION = "What is the capital of France?"


async def test_tritonclient_calls_the_router_and_a_model(fleet: Fleet) -> None:
    """The router chooses and streams; a model answers the same by its own address and name."""
    asked = [
        ["text_input", "BYTES", [QUESTION]],
        ["apply_chat_template", "BOOL", [True]],
        ["exclude_input_in_output", "BOOL", [True]],
    ]
    request = {"inputs": asked, "parameters": {"temperature": 0.0, "max_tokens": 32}}
    streamed = {**request, "inputs": [*asked, ["stream", "BOOL", [True]]]}
    with started() as triton:
        state = await triton.ask("state", fleet.router, model="zeta")
        routed = await triton.ask(
            "infer", fleet.router, model_name="zeta", outputs=["text_output", "model"], **request
        )
        (model,) = routed["outputs"]["model"]
        pieces = await triton.ask(
            "stream", fleet.router, requests=[{"model_name": model, **streamed}]
        )
        direct = await triton.ask("infer", fleet.model(model), model_name=model, **request)

    assert state["ready"]
    assert state["model_ready"]
    names = {m.name for m in fleet.config.models}
    assert {m["name"] for m in state["index"]["models"]} == names | {"zeta"}
    assert model in names
    text = direct["outputs"]["text_output"][0]
    assert text
    assert "".join(p["outputs"]["text_output"][0] for p in pieces) == text
    assert routed["outputs"]["text_output"] == [text]
