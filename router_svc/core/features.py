"""What the router knows of a request before anyone answers it, as numbers.

The embedding service gives the profile; `lexical_profile` stands in when it is late, from the
text alone. Nothing here sees a data set's labels. L = lexical features, D = `vector` length.
"""

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

TASKS: Final = ("code", "reasoning", "general", "embedding")
"""Order of `Features.tasks`."""
EMBEDDING_SIZE: Final = 384

_HEAD, _TAIL = 3000, 1000
"""Characters read of a long text: instructions stand at its ends."""
_COUNTS: Final = {
    "numbers": r"\d+",
    "operators": r"\d\s*\)?\s*[-+*/\u00d7\u00f7^%=]\s*\(?\s*-?[\d(?]",
    "parentheses": r"\(",
    "brackets": r"[\[{]",
    "calls": r"\w\(",
    "methods": r"\w\.[a-z_]+\(|\]\[|\)\[|'\[",
    "assignments": r"\w\s*=\s*[^=\s]|[=!<>]=",
    "quotes": r"[\"'`\u2018\u201c][^\"'`\u2019\u201d\n]{1,80}[\"'`\u2019\u201d]",
    "code_words": r"(?i)\b(?:python|def|return|lambda|print|import|function|class|code|program"
    r"|script|sql|javascript|java|html|list|dict|string|array|algorithm)\b",
    "maths_words": r"(?i)\b(?:calculate|compute|sum|total|plus|minus|times|each|more|left|solve"
    r"|equation|probability|percent|twice|half|average|per|integer|prove|how many|how much)\b",
    "time_and_units": r"(?i)\b(?:minutes?|hours?|days?|weeks?|months?|years?|seconds?|date|metres?"
    r"|meters?|centimet\w+|kilo\w+|grams?|litres?|km|kg|cm|monday|tuesday|wednesday|thursday"
    r"|friday|saturday|sunday)\b",
    "question_words": r"(?i)\b(?:what|which|who|whom|whose|when|where|why|how)\b",
    "comparisons": r"(?i)\b(?:\w+est|larger|bigger|smaller|greater|less|than|or)\b",
    "edits": r"(?i)\b(?:replace|reverse|swap|repeat|remove|join|connect|upper|lower|capital\w*"
    r"|letters?|words?|spell|characters?|insert|delete)\b",
    "choices": r"(?m)^\s*\(?[A-Ea-e1-5][).:]\s",
    "formulae": r"\\[a-z]+|\$",
    "newlines": r"\n",
    "question_marks": r"\?",
}
_PATTERNS: Final = tuple(re.compile(pattern) for pattern in _COUNTS.values())
LEXICAL: Final = (
    *_COUNTS,
    "length",
    "word_length",
    "digits",
    "capitals",
    "longest_number",
    "foreign",
)
"""Names of the lexical features, in order."""
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A profiled request."""

    embedding: Floats
    """Unit vector (384,); all zeros where there is none."""
    tasks: Floats
    """Probabilities (4,) in the order of TASKS."""
    difficulty: float
    """In [0, 1]."""
    expected_output_tokens: float
    prompt_tokens: int
    lexical: Floats
    """(L,) from `lexical`."""
    source: str
    """Who made it: an encoder's name, or "lexical"."""


def lexical(text: str) -> Floats:
    """Return cheap features of *text* (L,), each about 0 to 1; of a long text, its ends count."""
    read = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    found = [len(pattern.findall(read)) for pattern in _PATTERNS]
    numbers = _NUMBER.findall(read)
    size = max(len(read), 1)
    digits = sum(map(len, numbers))
    words = read.count(" ") + found[16] + 1
    shape = (
        np.log1p(len(text)) / 8.0,
        min(size / words / 10.0, 2.0),
        digits / size * 3.0,
        sum(map(str.isupper, read)) / size * 5.0,
        min(max(map(len, numbers), default=0) / 4.0, 2.0),
        0.0 if read.isascii() else sum(c > "\x7f" for c in read) / size,
    )
    return np.concatenate([np.log1p(found) / 2.0, shape])


def lexical_profile(text: str) -> Features:
    """Profile *text* by rules alone, without embedding."""
    x = lexical(text)
    tasks = _task_mix(dict(zip(LEXICAL, x.tolist(), strict=True)))
    return Features(
        embedding=np.zeros(EMBEDDING_SIZE),
        tasks=tasks,
        difficulty=float(np.clip(0.2 + 0.4 * x[0] + 0.2 * x[1] + 0.2 * x[18], 0.0, 1.0)),
        expected_output_tokens=32.0,
        prompt_tokens=len(text) // 4 + 1,
        lexical=x,
        source="lexical",
    )


def vector(features: Features) -> Floats:
    """Return the regression input (D,): constant, tasks, difficulty, lengths, lexical features."""
    return np.concatenate(
        [
            (
                1.0,
                features.difficulty,
                np.log1p(features.expected_output_tokens) / 6.0,
                np.log1p(features.prompt_tokens) / 8.0,
            ),
            features.tasks,
            features.lexical,
        ]
    )


def _task_mix(x: dict[str, float]) -> Floats:
    """Guess the task mix from named lexical features: softmax of evidence."""
    code = x["code_words"] + x["brackets"] + x["methods"] + x["assignments"] + 0.5 * x["quotes"]
    reasoning = 0.7 * x["numbers"] + x["operators"] + x["maths_words"] + 0.5 * x["formulae"]
    evidence = np.array([2.5 * code - 0.5, 2.5 * reasoning - 0.5, 1.0, -4.0])
    share: Floats = np.exp(evidence - evidence.max())
    share /= share.sum()
    return share
