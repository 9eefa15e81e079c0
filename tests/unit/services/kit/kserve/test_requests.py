"""Requests of the open inference protocol → requests of ours."""

import json
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.kserve.v2 import grpc_inference_service_pb2 as pb

from services.kit.errors import InvalidRequestError
from services.kit.kserve.requests import INPUTS, Call, read
from services.kit.kserve.settings import NEUTRAL, OPTIONS, SETTINGS

Tensor = pb.ModelInferRequest.InferInputTensor


def asking(*prompts: str, **fields: Any) -> pb.ModelInferRequest:
    """Ask *prompts* of the model m."""
    request = pb.ModelInferRequest(model_name="m", **fields)
    add(request, "text_input", *(p.encode() for p in prompts or ("Hi",)))
    return request


def add(request: pb.ModelInferRequest, name: str, *values: Any, columns: int = 0) -> None:
    """Add an input, its elements as bytes."""
    datatype = INPUTS[name]
    codes = {"BYTES": "", "BOOL": "?", "INT32": "<i", "UINT64": "<Q", "FP32": "<f"}
    packed = [
        struct.pack("<I", len(v)) + v if datatype == "BYTES" else struct.pack(codes[datatype], v)
        for v in values
    ]
    shape = [len(values) // columns, columns] if columns else [len(values)]
    request.inputs.append(Tensor(name=name, datatype=datatype, shape=shape))
    request.raw_input_contents.append(b"".join(packed))


def with_parameters(**values: Any) -> pb.ModelInferRequest:
    """Set parameters of the request."""
    request = asking()
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in values.items():
        setattr(request.parameters[name], kinds[type(value)], value)
    return request


def with_json(**values: Any) -> pb.ModelInferRequest:
    """Set `sampling_parameters`."""
    request = asking()
    add(request, "sampling_parameters", json.dumps(values).encode())
    return request


def only(call: Call) -> inference.GenerateRequest:
    """Return the call's one request."""
    (prompt,) = call.prompts
    return prompt.request


Sampling = inference.SamplingParams
SETTINGS_AND_MEANING = [
    ("max_tokens", 7, {"max_tokens": 7}),
    ("temperature", 0.5, {"sampling": Sampling(temperature=0.5)}),
    ("top_p", 0.25, {"sampling": Sampling(top_p=0.25)}),
    ("min_p", 0.25, {"sampling": Sampling(min_p=0.25)}),
    ("top_k", 3, {"sampling": Sampling(top_k=3)}),
    ("top_k", -1, {}),
    ("top_k", 0, {}),
    ("seed", 9, {"sampling": Sampling(seed=9)}),
    ("random_seed", 9, {"sampling": Sampling(seed=9)}),
    ("repetition_penalty", 1.5, {"sampling": Sampling(repetition_penalty=1.5)}),
    ("presence_penalty", -0.5, {"sampling": Sampling(presence_penalty=-0.5)}),
    ("frequency_penalty", 0.5, {"sampling": Sampling(frequency_penalty=0.5)}),
    ("stop", "END", {"stop": ["END"]}),
    ("stop_words", "", {}),
    ("regex", "a+", {"constraint": inference.OutputConstraint(regex="a+")}),
    ("json_schema", "{}", {"constraint": inference.OutputConstraint(json_schema="{}")}),
    ("policy", "fast", {"preference": inference.Preference(policy="fast")}),
    ("tenant", "t", {"tenant": "t"}),
    ("choice", "a", {"constraint": {"choice": {"options": ["a"]}}}),
]


@pytest.mark.parametrize("how", ["parameter", "json", "text in json", "tensor"])
@pytest.mark.parametrize(("name", "value", "meaning"), SETTINGS_AND_MEANING)
def test_each_setting_means_one_field(
    name: str, value: Any, meaning: dict[str, Any], how: str
) -> None:
    """As a parameter, in JSON (numbers as texts, too) or as a tensor."""
    match how:
        case "parameter":
            request = with_parameters(**{name: value})
        case "json":
            request = with_json(**{name: value})
        case "text in json":
            request = with_json(**{name: str(value)})
        case _:
            if value == -1 and INPUTS[name].startswith("U"):
                pytest.skip("an unsigned tensor holds no -1")
            request = asking()
            add(request, name, value.encode() if isinstance(value, str) else value)
    expected = inference.GenerateRequest(model="m", prompt="Hi", **meaning)

    assert only(read(request)) == expected


def test_every_setting_is_tried() -> None:
    """A new setting needs a line above."""
    assert {name for name, _, _ in SETTINGS_AND_MEANING} == SETTINGS.keys()


def test_tensors_go_before_json_before_parameters() -> None:
    """The nearest to the prompt counts."""
    request = with_parameters(max_tokens=1, top_k=1, seed=1)
    add(request, "sampling_parameters", b'{"max_tokens": 2, "top_k": 2}')
    add(request, "max_tokens", 3)
    found = only(read(request))

    assert (found.max_tokens, found.sampling.top_k, found.sampling.seed) == (3, 2, 1)


def test_each_prompt_has_its_row() -> None:
    """A tensor of as many rows says something else of each prompt, one row the same of all."""
    request = asking("a", "b", "c")
    add(request, "max_tokens", 1, 2, 3)
    add(request, "temperature", 0.5)
    add(request, "stop_words", b"x", b"", b"y", b"z", b"", b"", columns=2)
    requests = [prompt.request for prompt in read(request).prompts]

    assert [r.prompt for r in requests] == ["a", "b", "c"]
    assert [r.max_tokens for r in requests] == [1, 2, 3]
    assert [r.sampling.temperature for r in requests] == [0.5] * 3
    assert [list(r.stop) for r in requests] == [["x"], ["y", "z"], []]


@pytest.mark.parametrize(
    ("model", "template", "question"),
    [
        ("m", None, False), ("m", True, True), ("m", False, False),
        ("zeta", None, True), ("", None, True), ("zeta", False, False),
    ],
)  # fmt: skip
def test_a_text_is_a_question_where_the_server_chooses(
    model: str, *, template: bool | None, question: bool
) -> None:
    """A named model gets it as it is, unless `apply_chat_template` says something else."""
    request = asking() if template is None else with_parameters(apply_chat_template=template)
    request.model_name = model
    found = only(read(request))

    assert found.WhichOneof("input") == ("messages" if question else "prompt")
    assert found.model == ("m" if model == "m" else "")


@pytest.mark.parametrize(
    ("given_", "echo"),
    [({}, True), ({"stream": True}, False), ({"exclude_input_in_output": True}, False)],
)
def test_the_prompt_comes_first_as_on_triton(given_: dict[str, bool], *, echo: bool) -> None:
    """Unless it is excluded, or the answer is streamed."""
    (prompt,) = read(with_parameters(**given_)).prompts

    assert prompt.echo is echo


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (with_parameters(stream=True, exclude_input_in_output=False), "exclude_input_in_output"),
        (asking("a", "b", parameters={"stream": pb.InferParameter(bool_param=True)}), "stream"),
        (with_parameters(stream="perhaps"), "parameters['stream']"),
        (with_parameters(max_tokens=2.5), "parameters['max_tokens']"),
        (with_parameters(max_tokens=True), "parameters['max_tokens']"),
        (with_parameters(max_tokens=2**32), "parameters['max_tokens']"),
        (with_parameters(timeout=-1), "parameters['timeout']"),
        (with_json(seed=-1), "sampling_parameters.seed"),
        (with_json(seed=1e300), "sampling_parameters.seed"),
        (with_json(temperature=[0.5]), "sampling_parameters.temperature"),
        (with_json(temperature=float("nan")), "sampling_parameters.temperature"),
        (with_json(temperature=10**400), "sampling_parameters.temperature"),
        (with_json(stop=[1]), "sampling_parameters.stop"),
        (with_json(stop="\ud800"), "sampling_parameters.stop"),
        (with_json(text_input="x"), "sampling_parameters.text_input"),
        (with_json(sampling_parameters="{}"), "sampling_parameters.sampling_parameters"),
        (with_json(timeout=1), "sampling_parameters.timeout"),
        (with_parameters(sampling_parameters="[]"), "sampling_parameters"),
        (with_parameters(sampling_parameters=5), "sampling_parameters"),
        (with_parameters(bad_words="x"), "parameters['bad_words']"),
    ],
)
def test_what_cannot_be_read_is_named(request_: pb.ModelInferRequest, field: str) -> None:
    """The error says where the value was given."""
    with pytest.raises(InvalidRequestError) as refused:
        read(request_)

    assert [v.field for v in refused.value.violations] == [field]


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_asks_for_nothing_is_taken(name: str) -> None:
    """Clients that always send every setting need no change; null says nothing either."""
    values = {"n": 1, "length_penalty": 1.0, "skip_special_tokens": True, "bad_words": [""]}
    neutral = NEUTRAL[name][1]
    value = values.get(name, next(v for v in neutral if not isinstance(v, str) or not v))
    plain = only(read(asking()))

    assert only(read(with_json(**{name: value}))) == plain
    assert only(read(with_json(**{name: None}))) == plain
    with pytest.raises(InvalidRequestError, match="is not served"):
        read(with_json(**{name: 7}))


@pytest.mark.parametrize(("level", "priority"), [(0, 0), (1, 3), (2, 2), (3, 1), (99, 1)])
def test_priorities_are_tritons(level: int, priority: int) -> None:
    """1 goes first, 0 is the default."""
    assert only(read(with_parameters(priority=level))).priority == priority


TEXTS = st.text('aé0-1.e{[,"', max_size=6)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.lists(TEXTS, max_size=3)
)
NAMES = st.sampled_from([*INPUTS, "priority", "timeout", "sequence_id", "unknown"])
TENSORS = st.builds(
    Tensor,
    name=NAMES,
    datatype=st.sampled_from(["BYTES", "BOOL", "INT32", "FP32", "UINT64", "FP16", "BF16", ""]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=3),
)
PARAMETERS = st.one_of(
    st.builds(pb.InferParameter),
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(pb.InferParameter, double_param=st.floats()),
    st.builds(pb.InferParameter, string_param=TEXTS),
)


@given(
    tensors=st.lists(st.tuples(TENSORS, st.binary(max_size=16)), max_size=4),
    parameters=st.dictionaries(NAMES, PARAMETERS, max_size=4),
    sampling=st.dictionaries(st.sampled_from([*SETTINGS, *OPTIONS, *NEUTRAL]), VALUES, max_size=4),
)
@example(tensors=[], parameters={}, sampling={"top_k": []})
def test_whatever_comes_is_read_or_refused(
    tensors: list[tuple[Tensor, bytes]],
    parameters: dict[str, pb.InferParameter],
    sampling: dict[str, object],
) -> None:
    """Nothing but InvalidRequestError leaves, which has a field and a text."""
    request = asking(parameters=parameters)
    add(request, "sampling_parameters", json.dumps(sampling).encode())
    for tensor, raw in tensors:
        request.inputs.append(tensor)
        request.raw_input_contents.append(raw)
    try:
        call = read(request)
    except InvalidRequestError as error:
        refused = error
    else:
        assert call.prompts
        return
    assert [v for v in refused.violations if v.field and v.description]
