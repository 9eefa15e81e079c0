"""What a caller may set, under the names that Triton's vLLM and TensorRT-LLM backends use.

Each setting may come as an input tensor, in the JSON of `sampling_parameters`, or as a
parameter of the request; where several say it, the first in this order counts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zeta.inference.v1 import inference_service_pb2 as inference

_MAX_UINT32: Final = 2**32 - 1
_MAX_UINT64: Final = 2**64 - 1
_QUOTED: Final = 80


def flag(value: object) -> bool:
    """Read a truth value. Raises ValueError."""
    words = {"true": True, "1": True, "false": False, "0": False}
    found = words.get(str(_decoded(value)).lower())
    if found is None:
        raise ValueError(f"must be true or false, got {_quoted(value)}")
    return found


def whole(value: object, most: int = _MAX_UINT32) -> int:
    """Read a whole number from 0 to *most*. Raises ValueError."""
    given = _decoded(value)
    try:
        number = int(given) if isinstance(given, str) else given
    except ValueError:
        number = None
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
        raise ValueError(f"must be a whole number from 0 to {most}, got {_quoted(value)}")
    return number


def real(value: object) -> float:
    """Read a number. Raises ValueError."""
    given = _decoded(value)
    try:
        number = float(given) if isinstance(given, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(given, bool) or not math.isfinite(number):
        raise ValueError(f"must be a finite number, got {_quoted(value)}")
    return number


def text(value: object) -> str:
    """Read a text. Raises ValueError, for bytes that are not UTF-8 with the place."""
    given = _decoded(value)
    if not isinstance(given, str):
        raise ValueError(f"must be a text, got {_quoted(value)}")  # noqa: TRY004 - the caller's
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a surrogate pair at {error.start}") from error
    return given


def texts(value: object) -> list[str]:
    """Read a text or a list of texts; empty ones say that there is none. Raises ValueError."""
    return [found for found in map(text, _listed(value)) if found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: the kind of its tensor, how its value is read, and where that goes."""

    datatype: str
    read: Callable[[Any], Any]
    put: Callable[[inference.GenerateRequest, Any], None]
    many: bool = False
    """Takes a row of elements, not one."""


def _sampling(name: str) -> Callable[[inference.GenerateRequest, Any], None]:
    return lambda request, value: setattr(request.sampling, name, value)


def _top_k(request: inference.GenerateRequest, value: int) -> None:
    if value:
        request.sampling.top_k = value


def _seed(value: object) -> int:
    return whole(value, _MAX_UINT64)


def _limit(value: object) -> int:
    """Read top_k, where -1 and 0 stand for no limit."""
    # A tuple: what is in JSON may be a list, which no set can be asked for.
    return 0 if _decoded(value) in (-1, "-1") else whole(value)


def _field(name: str) -> Callable[[inference.GenerateRequest, Any], None]:
    return lambda request, value: setattr(request, name, value)


_REALS: Final = (
    "temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip
_SEED: Final = Setting(datatype="UINT64", read=_seed, put=_sampling("seed"))
_STOP: Final = Setting(
    datatype="BYTES", read=texts, many=True, put=lambda request, value: request.stop.extend(value)
)
SETTINGS: Final[Mapping[str, Setting]] = {
    "max_tokens": Setting(datatype="INT32", read=whole, put=_field("max_tokens")),
    **{name: Setting(datatype="FP32", read=real, put=_sampling(name)) for name in _REALS},
    "top_k": Setting(datatype="INT32", read=_limit, put=_top_k),
    "seed": _SEED,
    "random_seed": _SEED,
    "stop": _STOP,
    "stop_words": _STOP,
    "json_schema": Setting(
        datatype="BYTES", read=text, put=lambda r, v: setattr(r.constraint, "json_schema", v)
    ),
    "regex": Setting(
        datatype="BYTES", read=text, put=lambda r, v: setattr(r.constraint, "regex", v)
    ),
    "choice": Setting(
        datatype="BYTES", read=lambda v: [text(x) for x in _listed(v)], many=True,
        put=lambda r, v: r.constraint.choice.options.extend(v),
    ),
    "policy": Setting(
        datatype="BYTES", read=text, put=lambda r, v: setattr(r.preference, "policy", v)
    ),
    "tenant": Setting(datatype="BYTES", read=text, put=_field("tenant")),
}  # fmt: skip
"""What goes into the `GenerateRequest`."""

NEUTRAL: Final[Mapping[str, tuple[str, frozenset[object]]]] = {
    **{name: ("INT32", frozenset({1, "1"})) for name in ("n", "best_of", "beam_width")},
    "num_return_sequences": ("INT32", frozenset({1, "1"})),
    **{name: ("INT32", frozenset({0, "0"})) for name in ("min_length", "min_tokens")},
    **{name: ("FP32", frozenset({1, "1", "1.0"})) for name in ("length_penalty", "len_penalty")},
    **{
        name: ("BOOL", frozenset({False, "false", "False"}))
        for name in (
            "ignore_eos", "use_beam_search", "return_logprobs", "return_log_probs",
            "return_context_logits", "return_generation_logits",
        )
    },
    "skip_special_tokens": ("BOOL", frozenset({True, "true", "True"})),
    "bad_words": ("BYTES", frozenset({""})),
}  # fmt: skip
"""What those backends can do and Zeta cannot: only the values that ask for nothing are taken."""


OPTIONS: Final = (
    "stream", "exclude_input_in_output", "apply_chat_template", "return_finish_reason",
    "return_cumulative_logprob", "return_num_input_tokens", "return_num_output_tokens",
)  # fmt: skip
"""Truth values that say how the answer is to come back, not what it should be."""


def check_neutral(name: str, value: object) -> None:
    """Raise ValueError where *value* asks for something that Zeta does not do."""
    allowed, given = NEUTRAL[name][1], map(_decoded, _listed(value))
    if not all(isinstance(v, str | int | float) and v in allowed for v in given):
        raise ValueError(f"is not served, leave it out; got {_quoted(value)}")


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [value]


def _decoded(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"is not UTF-8: byte 0x{value[error.start]:02x} at {error.start}"
        ) from error


def _quoted(value: object) -> str:
    quoted = repr(value)
    return quoted if len(quoted) <= _QUOTED else f"{quoted[:_QUOTED]}…"
