"""What the fleet's models say, asked through the router."""

import json
import re
from typing import TYPE_CHECKING

import jsonschema
import pytest
from zeta.inference.v1.inference_service_pb2 import Choice, OutputConstraint

from tests.system.calls import TIMEOUT_S, answer, question

if TYPE_CHECKING:
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

SCHEMA = {
    "type": "object",
    "properties": {
        "sum": {"type": "integer", "minimum": 0, "maximum": 99},
        "sure": {"enum": [True]},
    },
    "required": ["sum", "sure"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", ["", "general-4b", "coder-7b", "reasoner-14b"])
async def test_an_answer_has_the_form_that_was_asked_for(
    router: "InferenceServiceAsyncStub", model: str
) -> None:
    """One of a list, an expression's match, a schema's instance; from every model."""

    async def text(constraint: OutputConstraint) -> str:
        asked = question(model=model, max_tokens=64)
        asked.constraint.CopyFrom(constraint)
        return (await answer(router.Generate(asked, timeout=TIMEOUT_S))).text

    assert await text(OutputConstraint(choice=Choice(options=["forty-two", "no"]))) in {
        "forty-two",
        "no",
    }
    assert re.fullmatch(r"[0-9]{2}\.", await text(OutputConstraint(regex=r"[0-9]{2}\.")))
    said = await text(OutputConstraint(json_schema=json.dumps(SCHEMA)))
    jsonschema.validate(json.loads(said), SCHEMA)


async def test_a_conversation_s_beginning_is_fed_once(router: "InferenceServiceAsyncStub") -> None:
    """The second question with one long beginning finds most of it in the model's cache."""
    beginning = "Answer in one word, as a careful clerk would, and never say more. " * 3
    spared = []
    for asked in ("What is 1 + 2?", "Name a colour."):
        call = router.Generate(question(beginning + asked, model="coder-7b"), timeout=TIMEOUT_S)
        usage = (await answer(call)).finished.usage
        spared.append(usage.cached_prompt_tokens / usage.prompt_tokens)
    assert spared[1] > 0.5
