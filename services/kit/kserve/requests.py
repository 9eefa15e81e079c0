"""`ModelInferRequest` → one `GenerateRequest` for each prompt, and how to reply."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.kserve.v2 import grpc_inference_service_pb2 as pb

from services.kit.errors import invalid
from services.kit.kserve import tensors
from services.kit.kserve.pieces import OUTPUTS
from services.kit.kserve.settings import (
    NEUTRAL,
    OPTIONS,
    SETTINGS,
    check_neutral,
    flag,
    text,
    whole,
)
from services.kit.kserve.tensors import Scalar, Tensor, quoted

ANY: Final = "zeta"
"""The model's name that, as none, leaves the choice to the server."""
VERSION: Final = "1"
MAX_PROMPTS: Final = 64

INPUTS: Final[Mapping[str, str]] = {
    "text_input": "BYTES",
    "sampling_parameters": "BYTES",
    **dict.fromkeys(OPTIONS, "BOOL"),
    **{name: setting.datatype for name, setting in SETTINGS.items()},
    **{name: datatype for name, (datatype, _) in NEUTRAL.items()},
}
"""Every input with its kind of elements; only text_input must be there."""
_NAMES: Final = INPUTS.keys() - {"text_input", "sampling_parameters"}
_ENVELOPE: Final = frozenset(
    {
        "priority", "timeout", "triton_enable_empty_final_response", "sequence_id",
        "sequence_start", "sequence_end",
    }
)  # fmt: skip
"""Parameters with a meaning of the protocol's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt of a request."""

    text: str
    echo: bool
    """Put the prompt before the answer."""
    request: inference.GenerateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One `ModelInferRequest`."""

    id: str
    model: str
    """As it was asked for; ANY where it was not."""
    prompts: tuple[Prompt, ...]
    shape: tuple[int, ...]
    """[n] or [n, 1], of n prompts."""
    outputs: tuple[str, ...]
    stream: bool
    empty_final: bool
    """A streamed answer ends with a response without outputs."""
    timeout_s: float | None
    raw: bool
    """Elements travel as bytes."""


def read(request: pb.ModelInferRequest) -> Call:
    """Read *request*. Raises InvalidRequestError for the first field that is wrong."""
    check_version(request.model_version)
    model = asked(request.model_name)
    found = tensors.read(request, INPUTS)
    texts, shape = _texts(found)
    read_ = [
        _prompt(text_, model, _given(request, found, i, len(texts)))
        for i, text_ in enumerate(texts)
    ]
    prompts = tuple(prompt for prompt, _ in read_)
    options = {name: any(each[name] for _, each in read_) for name in OPTIONS}
    if options["stream"] and len(prompts) > 1:
        raise invalid("stream", f"needs a single prompt, got {len(prompts)}: ask for each apart")
    outputs = _outputs(request, options)
    envelope = _envelope(request, prompts)
    if "cumulative_logprob" in outputs:
        for prompt in prompts:
            prompt.request.logprobs.SetInParent()
    return Call(
        id=request.id,
        model=model or ANY,
        prompts=prompts,
        shape=shape,
        outputs=outputs,
        stream=options["stream"],
        empty_final=envelope["triton_enable_empty_final_response"] == 1,
        timeout_s=envelope["timeout"] / 1e6 if envelope["timeout"] else None,
        raw=bool(request.raw_input_contents),
    )


def asked(model: str) -> str:
    """Return the model's name as `GenerateRequest.model` has it."""
    return "" if model == ANY else model


def check_version(version: str) -> None:
    """Raise InvalidRequestError for a version that there is not."""
    if version not in {"", VERSION}:
        raise invalid("model_version", f"must be empty or {VERSION!r}, got {quoted(version)}")


def _texts(found: Mapping[str, Tensor]) -> tuple[list[str], tuple[int, ...]]:
    """Return the prompts and their shape."""
    tensor = found.get("text_input")
    if tensor is None:
        raise invalid("inputs", "text_input is missing: BYTES of shape [n] or [n, 1]")
    if tensor.datatype != "BYTES":
        raise invalid("text_input.datatype", f"must be BYTES, got {tensor.datatype}")
    if len(tensor.values) != tensor.shape[0] or tensor.shape[0] > MAX_PROMPTS:
        raise invalid(
            "text_input.shape",
            f"must be [n] or [n, 1] with 1 to {MAX_PROMPTS} prompts, got {list(tensor.shape)}",
        )
    names = [f"text_input[{i}]" for i in range(len(tensor.values))]
    texts = [_value(name, text, value) for name, value in zip(names, tensor.values, strict=True)]
    for name, given in zip(names, texts, strict=True):
        if not given:
            raise invalid(name, "must not be empty")
    return texts, tensor.shape


def _prompt(
    given_text: str, model: str, given: Mapping[str, tuple[str, object]]
) -> tuple[Prompt, Mapping[str, bool]]:
    """Build one prompt's request; return it with what it says of the reply."""
    request = inference.GenerateRequest(model=model)
    options = dict.fromkeys(OPTIONS, False)
    for name, (field, value) in given.items():
        if name in OPTIONS:
            options[name] = _value(field, flag, value)
        elif name in NEUTRAL:
            _value(field, lambda v, name=name: check_neutral(name, v), value)  # type: ignore[misc]
        else:
            _put(request, name, field, value)
    echo = "exclude_input_in_output" in given and not options["exclude_input_in_output"]
    if echo and options["stream"]:
        raise invalid("exclude_input_in_output", "must be true, or left out, with stream")
    echo = not options["exclude_input_in_output"] and not options["stream"]
    # Where the server chooses, the caller cannot know whose template to apply.
    if options["apply_chat_template"] or ("apply_chat_template" not in given and not model):
        request.messages.messages.add(role=inference.ROLE_USER, content=given_text)
    else:
        request.prompt = given_text
    return Prompt(text=given_text, echo=echo, request=request), options


def _put(request: inference.GenerateRequest, name: str, field: str, value: object) -> None:
    setting = SETTINGS[name]
    _value(field, lambda v: setting.put(request, setting.read(v)), value)


def _given(
    request: pb.ModelInferRequest, found: Mapping[str, Tensor], i: int, count: int
) -> Mapping[str, tuple[str, object]]:
    """Return what is said of prompt *i* of *count*: by name, where it is said and the value."""
    given = {
        name: (f"parameters[{quoted(name)}]", _chosen(parameter))
        for name, parameter in request.parameters.items()
        if name not in _ENVELOPE
    }
    rows = {
        name: _value(name, lambda t: t.row(i, count), tensor)
        for name, tensor in found.items()
        if name != "text_input"
    }
    _, packed = given.pop("sampling_parameters", ("", None))
    if "sampling_parameters" in rows:
        packed = _single("sampling_parameters", rows.pop("sampling_parameters"))
    if packed is not None:
        given |= _from_json(packed)
    for name, row in rows.items():
        many = name in NEUTRAL or (name in SETTINGS and SETTINGS[name].many)
        given[name] = (name, list(row) if many else _single(name, row))
    for name, (field, _) in given.items():
        if name not in _NAMES:
            raise invalid(field, f"nothing is called so; there are {', '.join(sorted(_NAMES))}")
    return {name: said for name, said in given.items() if said[1] is not None}


def _from_json(packed: object) -> Mapping[str, tuple[str, object]]:
    field = "sampling_parameters"
    try:
        found = json.loads(_value(field, text, packed))
    except (ValueError, RecursionError) as error:
        raise invalid(field, f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise invalid(field, f"must be a JSON object, got {quoted(json.dumps(found))}")
    return {name: (f"{field}.{quoted(name)[1:-1]}", said) for name, said in found.items()}


def _chosen(parameter: pb.InferParameter) -> object:
    """Return the parameter's value, None without one."""
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None


def _single(name: str, row: Sequence[Scalar]) -> Scalar:
    if len(row) != 1:
        raise invalid(f"{name}.shape", f"must have one element for each prompt, got {len(row)}")
    return row[0]


def _outputs(request: pb.ModelInferRequest, options: Mapping[str, bool]) -> tuple[str, ...]:
    """Return what is to come out: what is named, or the text and what options ask for."""
    for i, wanted in enumerate(request.outputs):
        if wanted.name not in OUTPUTS:
            raise invalid(
                f"outputs[{i}].name",
                f"must be one of {', '.join(OUTPUTS)}, got {quoted(wanted.name)}",
            )
        if wanted.parameters:
            raise invalid(f"outputs[{i}].parameters", "must be empty: none is served")
    named = tuple(dict.fromkeys(wanted.name for wanted in request.outputs))
    returned = [name for name in OUTPUTS if options.get(f"return_{name}")]
    return named or ("text_output", *returned)


def _envelope(request: pb.ModelInferRequest, prompts: Sequence[Prompt]) -> Mapping[str, int]:
    """Read the protocol's own parameters; those that `Generate` knows go into its requests."""
    found = dict.fromkeys(_ENVELOPE, 0)
    for name in _ENVELOPE & request.parameters.keys():
        value = _chosen(request.parameters[name])
        if name == "sequence_id":
            for prompt in prompts:
                prompt.request.session_id = str(value)
        elif value is not None:
            number = int(value) if isinstance(value, bool) else value
            found[name] = _value(f"parameters['{name}']", _long, number)
    for prompt in prompts:
        prompt.request.priority = _PRIORITIES.get(found["priority"], inference.PRIORITY_BATCH)
    return found


_PRIORITIES: Final = {
    0: inference.PRIORITY_UNSPECIFIED,
    1: inference.PRIORITY_CRITICAL,
    2: inference.PRIORITY_STANDARD,
}
"""Triton's levels: 1 goes first, 0 is the default; all beyond 2 wait."""


def _long(value: object) -> int:
    return whole(value, 2**64 - 1)


def _value(field: str, read_: Callable[[Any], Any], value: object) -> Any:
    """Read *value*, a mistake in which is *field*'s."""
    try:
        return read_(value)
    except ValueError as error:
        raise invalid(field, str(error)) from error
