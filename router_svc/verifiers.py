"""Verifiers say how good an answer is, from 0 to 1, without anybody's judgement.

A verifier is one function of (answer, reference) and one entry. Laws, held by
`tests/laws/test_verifiers.py`: any two texts give a number in [0, 1], the same each time, within
bounded time; an empty answer earns 0; a good one earns 1, with its scratchpad too. Text that is
no reference for the verifier raises InvalidRequestError, whatever the answer.

They serve clients (`zeta_client.verify`), `SubmitFeedback`, and plans of best-of.
"""

import ast
import doctest as doctests
import json
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import jsonschema
import referencing

from router_svc import sandbox
from router_svc.core.answer import code_of, final, number_of
from services.kit.errors import invalid

Verifier: TypeAlias = Callable[[str, str], float]

_TOLERANCE: Final = 1e-6


def exact(answer: str, reference: str) -> float:
    """Earn 1 for what *reference* says, but for spacing."""
    return float(_spaced(final(answer)[0]) == _spaced(_needed(reference)))


def numeric(answer: str, reference: str) -> float:
    """Earn 1 for the number that *reference* is, to six digits."""
    wanted = number_of(_needed(reference))
    if wanted is None:
        raise invalid("reference", f"must be a number, got {reference[:80]!r}")
    found = number_of(final(answer)[0])
    near = found is not None and math.isclose(found, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return float(near)


def json_schema(answer: str, reference: str) -> float:
    """Earn 1 for JSON that satisfies the schema *reference*; empty: any JSON."""
    schema = _schema(reference)
    value, parsed = _parsed(code_of(answer).strip())
    if not parsed:
        return 0.0
    try:
        return float(not reference or _validator(schema).is_valid(value))
    except RecursionError:
        return 0.0
    except Exception as error:
        raise invalid("reference", f"not a usable JSON schema: {error}") from error


def python(answer: str, reference: str) -> float:
    """Earn 1 for Python that parses; *reference* does not matter."""
    del reference
    code = code_of(answer)
    if not code.strip():
        return 0.0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0.0
    return 1.0


def doctest(answer: str, reference: str) -> float:
    """Earn the share of the doctests of *reference* that the Python in the answer passes.

    It runs in a process of its own, with limits; `sandbox` says which, and what they leave open.
    """
    try:
        wanted = len(doctests.DocTestParser().get_examples(_needed(reference)))
    except ValueError as error:
        raise invalid("reference", f"not a doctest: {error}") from error
    if not wanted:
        raise invalid("reference", "has no doctest (a line that starts with >>>)")
    if not code_of(answer).strip():
        return 0.0
    passed, _ = sandbox.doctests(code_of(answer), reference)
    return min(passed / wanted, 1.0)


VERIFIERS: Final[Mapping[str, Verifier]] = {
    "exact": exact,
    "numeric": numeric,
    "json": json_schema,
    "python": python,
    "doctest": doctest,
}
WITHOUT_REFERENCE: Final = ("json", "python")
"""Those that can tell answers apart before anybody knows the right one."""


def verify(name: str, answer: str, reference: str = "") -> float:
    """Return what verifier *name* gives *answer*. Raises InvalidRequestError."""
    verifier = VERIFIERS.get(name)
    if verifier is None:
        raise invalid("verifier", f"no verifier {name!r}; there are: {', '.join(VERIFIERS)}")
    return verifier(answer, reference)


def _needed(reference: str) -> str:
    if not reference.strip():
        raise invalid("reference", "must not be empty for this verifier")
    return reference


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _validator(schema: Any) -> jsonschema.Draft202012Validator:
    """Build a validator that fetches nothing: a `$ref` elsewhere is no usable schema."""
    return jsonschema.Draft202012Validator(schema, registry=referencing.Registry())


def _schema(reference: str) -> Any:
    if not reference:
        return True
    try:
        schema = json.loads(reference)
        jsonschema.Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError, jsonschema.SchemaError) as error:
        raise invalid("reference", f"not a JSON schema: {str(error)[:200]}") from error
    return schema


def _parsed(text: str) -> tuple[Any, bool]:
    try:
        return json.loads(text), True
    except (ValueError, RecursionError):
        return None, False
