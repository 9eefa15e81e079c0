"""What an answer says, apart from how it says it: the common form of equal answers.

An answer is what follows a scratchpad. Of a worked answer, what it marks as its result counts
(boxed, after "####" or "the answer is", an "answer" in JSON, the last block of code). Numbers
compare by value, fractions and percentages among them; JSON and Python by what they mean; a choice
by its letter; all else as words without case.
"""

import ast
import json
import re
import warnings
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

_SCRATCHPAD: Final = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE: Final = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_HASHES: Final = re.compile(r"^####\s*(.+?)\s*$", re.MULTILINE)
_STATED: Final = re.compile(
    r"\b(?:final\s+|correct\s+|right\s+)?answer(?:\s+is\s*:?|\s*[:=])\s*(.+?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER: Final = re.compile(
    r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d{1,3})?", re.IGNORECASE
)
_FRACTION: Final = re.compile(r"([-+]?\d{1,18})\s*/\s*(\d{1,18})")
_LATEX_FRACTION: Final = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LATEX_TEXT: Final = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")
_LATEX_NOISE: Final = re.compile(r"\\(?:left|right|displaystyle|quad|,|;|:|!|\s|\(|\)|\[|\])")
_CHOICE: Final = re.compile(r"(?:\(([A-Ja-j])\)|([A-J])[.):])(?:\s.*)?", re.DOTALL)
_MARKED: Final = frozenset("()[]{}=+*/<>%:'\"")
_MEASURED: Final = re.compile(
    r"[$€£]?\s*([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*[A-Za-z°][A-Za-z°/ ]{0,40}\.?"
)
_BROKEN_JSON: Final = re.compile(
    r'"(?:final_)?answer"\s*:\s*"?(.*?)"?\s*\}?\s*(?:```\s*)?\Z', re.DOTALL
)
_KEYS: Final = ("answer", "final_answer", "result")
_LONGEST: Final = 20_000
"""Longer texts are compared as words; parsing them would take time."""


@lru_cache(maxsize=8192)
def normalised(text: str) -> str:
    """Return what two equal answers have in common."""
    result, marked = final(text)
    if marked and (measured := _MEASURED.fullmatch(result)):
        result = measured[1]  # what is marked may name its unit: "18 dollars"
    return _canonical(result)


def final(text: str) -> tuple[str, bool]:
    """Return what *text* gives as its result, and whether it marks it as such."""
    visible = _SCRATCHPAD.sub("", text).strip()
    block = _last_block(visible)
    if block is not None:
        in_json = _in_json(block.strip())
        return (block if in_json is None else in_json).strip(), True
    for marked in (_boxed, _in_json, _after_marks):
        if (found := marked(visible)) is not None:
            return found.strip(), True
    return visible, False


def code_of(text: str) -> str:
    """Return the code in *text*: its last block, or all of it."""
    visible = _SCRATCHPAD.sub("", text).strip("\n")
    block = _last_block(visible)
    return visible if block is None else block


def number_of(text: str) -> float | None:
    """Return the number that *text* is, None where it is none; 50% is 50, and 1/2 is 0.5."""
    plain = _without_latex(text).strip().strip(" .!\"'`").removeprefix("$").strip()
    plain = plain.removesuffix("%").strip()
    if fraction := _FRACTION.fullmatch(plain):
        above, below = int(fraction[1]), int(fraction[2])
        return float(Fraction(above, below)) if below else None
    if not _NUMBER.fullmatch(plain):
        return None
    try:
        return float(plain.replace(",", ""))
    except ValueError:  # the pattern's parts are all optional
        return None


def _canonical(text: str) -> str:
    number = number_of(text)
    if number is not None:
        return f"{number:.9g}"
    plain = " ".join(_without_latex(text).split()).strip(" .!\"'`").removeprefix("$")
    if choice := _CHOICE.fullmatch(text.strip()):
        return (choice[1] or choice[2]).casefold()
    if len(text) <= _LONGEST and (meaning := _meaning(text.strip())) is not None:
        return meaning
    return plain.removesuffix("$").casefold()


def _meaning(text: str) -> str | None:
    """Return JSON and Python in one way of writing, None for other text."""
    if not _MARKED & set(text):
        return None
    value = _json(text)
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            return _literal(tree) or ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _literal(tree: ast.Module) -> str | None:
    """Return a display of values as JSON writes it, and a string as its text."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    try:
        value = ast.literal_eval(tree.body[0].value)
        return value.casefold() if isinstance(value, str) else json.dumps(value, sort_keys=True)
    except (ValueError, TypeError):
        return None


def _boxed(text: str) -> str | None:
    r"""Return what the last \boxed{…} holds, braces inside it balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for i in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : i]
    return None


def _in_json(text: str) -> str | None:
    value = _json(text) if text.startswith("{") else None
    if not isinstance(value, dict):
        broken = _BROKEN_JSON.search(text) if text.startswith("{") else None
        return broken[1] if broken else None
    for key in _KEYS:
        if key in value:
            found = value[key]
            return found if isinstance(found, str) else json.dumps(found)
    return None


def _after_marks(text: str) -> str | None:
    for mark in (_HASHES, _STATED):
        if found := mark.findall(text):
            return str(found[-1]).strip("*_ ")
    return None


def _last_block(text: str) -> str | None:
    blocks = _FENCE.findall(text)
    return blocks[-1] if blocks else None


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _without_latex(text: str) -> str:
    if "\\" not in text:
        return text.strip().strip("$")
    plain = _LATEX_FRACTION.sub(r"\1/\2", text)
    plain = _LATEX_NOISE.sub("", _LATEX_TEXT.sub(r"\1", plain))
    return plain.replace("\\%", "%").replace("\\$", "").replace("{,}", ",").strip().strip("$")
