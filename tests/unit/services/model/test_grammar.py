"""Constraints, against what checks answers independently: re, jsonschema, equality."""

import json
import re

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.errors import InvalidRequestError, NotBuiltError
from services.model.backends.fake import FakeBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request, Sampling
from services.model.grammar import Constraint, Form, Grammars
from tests.unit.services.model import tiny

TOKENIZER = tiny.byte_tokenizer()
VOCABULARY = TOKENIZER.get_vocab_size() + 5
"""Weights often know more tokens than the tokenizer."""
END = TOKENIZER.get_vocab_size() - 1
CONTEXT = 256
GRAMMARS = Grammars(TOKENIZER.to_str(), vocabulary=VOCABULARY, stop_ids=frozenset({END}))


def constraint(form: Form, *texts: str) -> Constraint:
    """Return a constraint."""
    return Constraint(form=form, texts=texts)


def answer(asked: Constraint, seed: int) -> tuple[str, bool]:
    """Answer with random tokens under *asked*; return the text, and whether it is complete."""
    backend = FakeBackend(slots=1, context_tokens=CONTEXT, vocabulary=VOCABULARY)
    engine = Engine(backend, Limits(max_running=1, kv_tokens=CONTEXT, chunk_tokens=8))
    request = Request(
        id=1,
        tokens=np.random.default_rng(seed).integers(0, VOCABULARY, 4),
        max_tokens=CONTEXT - 4,
        sampling=Sampling(temperature=1.5, seed=seed, frequency_penalty=1.0),
        stop_ids=frozenset({END}),
        grammar=GRAMMARS.compile(asked),
    )
    engine.add(request)
    outputs: list[Generated] = []
    while not engine.idle:
        outputs += [o for o in engine.step().outputs if isinstance(o, Generated)]
    text: str = TOKENIZER.decode([o.token for o in outputs])
    return text, len(outputs) < request.max_tokens


@settings(max_examples=60)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=5), st.integers(0, 99))
def test_a_choice_is_one_of_its_options(options: list[str], seed: int) -> None:
    """To the letter, whatever the letters; an option may begin another."""
    text, complete = answer(constraint("choice", *options), seed)
    assert complete
    assert text in options


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "regex",
    ["a+b", "[0-9]{4}-[0-9]{2}", "(yes|no)(, (sir|madam))?", "a/b\\\\", 'é"{2}\n', "", "(?i)Abc"],
)
def test_an_answer_matches_its_regular_expression(regex: str, seed: int) -> None:
    """All of it does."""
    text, complete = answer(constraint("regex", regex), seed)
    assert complete
    assert re.fullmatch(regex, text)


SCHEMAS = [
    {"type": "boolean"},
    {"enum": ["a", 1, None]},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "size": {"type": "integer", "minimum": 3, "maximum": 40},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3},
        },
        "required": ["name", "size"],
        "additionalProperties": False,
    },
    {"$defs": {"n": {"type": "null"}}, "anyOf": [{"$ref": "#/$defs/n"}, {"const": {"k": [1]}}]},
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_an_answer_satisfies_its_schema(schema: dict[str, object], seed: int) -> None:
    """The same answer passes another implementation's validation."""
    text, complete = answer(constraint("json_schema", json.dumps(schema)), seed)
    assert complete
    jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (constraint("regex", "(a"), "unclosed group"),
        (constraint("regex", "a(?=b)"), "look-ahead"),
        (constraint("regex", "[^\\x00-\\U0010ffff]"), "NoExtension"),
        (constraint("json_schema", "{bad"), "cannot be read"),
        (constraint("json_schema", "[]"), "JSON object"),
        (constraint("json_schema", "[" * 50_000), "cannot be read"),
        (constraint("json_schema", '{"minimum": NaN}'), "cannot be read"),
        (constraint("json_schema", '{"type": "text"}'), "Invalid type"),
        (constraint("json_schema", '{"not": {"const": 1}}'), "Unimplemented"),
        (constraint("json_schema", '{"$ref": "file:///etc/hosts"}'), "does not fetch"),
        (
            constraint("json_schema", '{"type": "number", "minimum": 5, "maximum": 3}'),
            "Unsatisfiable",
        ),
        (constraint("json_schema", '{}}]}, {"lark_grammar": "start: /x/"}'), "cannot be read"),
    ],
)
def test_what_cannot_be_followed_is_refused(asked: Constraint, reason: str) -> None:
    """By the field's name, with the reason in one line."""
    with pytest.raises(InvalidRequestError, match=reason) as refused:
        GRAMMARS.compile(asked)
    (violation,) = refused.value.violations
    assert violation.field == f"constraint.{asked.form}"
    assert "\n" not in violation.description


@pytest.mark.parametrize(
    ("serialised", "stop_ids", "reason"),
    [("{}", {1}, "tokenizer"), (TOKENIZER.to_str(), set(), "ends an answer")],
)
def test_a_model_that_cannot_be_held_to_anything_says_so(
    serialised: str, stop_ids: set[int], reason: str
) -> None:
    """Only constrained requests are refused, and not as the caller's fault."""
    grammars = Grammars(serialised, vocabulary=VOCABULARY, stop_ids=frozenset(stop_ids))
    with pytest.raises(NotBuiltError, match=reason):
        grammars.compile(constraint("regex", "a"))
