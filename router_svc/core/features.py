"""What the router knows of a request before anyone answers it, as numbers.

The embedding service gives the profile; `lexical_profile` stands in when it is late, from the
text alone. Nothing here sees a data set's labels. What regressions take is made with the profile,
once: every prediction and every lesson about a request asks for it. L = lexical features,
D = regressors of quality.
"""

import re
from dataclasses import dataclass, field
from hashlib import shake_256
from math import log, log1p
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import clipped
from router_svc.core.pieces import Pieces, pieces

Floats: TypeAlias = NDArray[np.float64]

TASKS: Final = ("code", "reasoning", "general", "embedding")
"""Order of `Features.tasks`."""
EMBEDDING_SIZE: Final = 384
LONGEST_TOKENS: Final = 131_072.0
"""No answer is expected to be longer."""

_HEAD, _TAIL = 1500, 500
"""Characters read of a long text: instructions stand at its ends."""
_PATTERNS: Final = {
    # Every repetition is bounded or starts at a fixed place, so that no text is slow.
    "numbers": r"\d+",
    "operators": r"\d ?\)? ?[-+*/\u00d7\u00f7^%=] ?\(? ?-?[\d(?]",
    "calls": r"\w\(",
    "methods": r"\w\.[a-z_]{1,30}\(|\]\[|\)\[|'\[",
    "assignments": r"\w ?= ?[^=\s]|[=!<>]=",
    "quotes": r"[\"'`\u2018\u201c][^\"'`\u2019\u201d\n]{1,80}[\"'`\u2019\u201d]",
    "choices": r"(?m)^ {0,4}\(?[A-Ea-e1-5][).:] ",
    "capitals": r"[A-Z]",
}
_CHARACTERS: Final = {
    "parentheses": "(",
    "brackets": "[{",
    "formulae": "\\$",
    "newlines": "\n",
    "question_marks": "?",
}
_WORDS: Final = {
    "code_words": "python def return lambda print import function class code program script sql"
    " javascript java html list dict string array algorithm",
    "maths_words": "calculate compute sum total plus minus times each more left solve equation"
    " probability percent twice half average per integer prove many much",
    "measures": "minute minutes hour hours day days week weeks month months year years second"
    " seconds date metre metres meter meters centimetre centimetres centimeters kilometre"
    " kilometres kilometers kilogram kilograms gram grams litre litres km kg cm mm mile miles"
    " monday tuesday wednesday thursday friday saturday sunday",
    "question_words": "what which who whom whose when where why how",
    "comparisons": "larger bigger smaller greater less than or largest biggest smallest greatest"
    " least most highest lowest",
    "edits": "replace reverse swap repeat remove join connect upper lower capital capitals"
    " capitalise capitalize letter letters word words spell character characters insert delete",
    "writing": "write explain describe essay story poem summarise summarize translate discuss"
    " implement draft step steps detail outline compare",
}
_FINDERS: Final = tuple(re.compile(pattern).findall for pattern in _PATTERNS.values())
_CLASS_OF: Final = {w: i for i, words in enumerate(_WORDS.values()) for w in words.split()}
_WORD: Final = re.compile(r"[a-z]+")
_SHAPE: Final = ("length", "word_length", "digits", "longest_number", "foreign")
LEXICAL: Final = (*_PATTERNS, *_CHARACTERS, *_WORDS, *_SHAPE)
"""Names of the lexical features, in order."""
_NUMBERS: Final = LEXICAL.index("numbers")
_PROJECTED: Final = 64
FORM: Final = slice(1, -_PROJECTED)
"""Of a prompt's regressors those of its form: all but the constant and the topic."""


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
    pieces: Pieces
    """(P,) from `pieces.pieces`: how it is worded."""
    source: str
    """Who made it: an encoder's name, or "lexical"."""
    regressors: Floats = field(init=False, repr=False, compare=False)
    """(D,) What quality is learned from: constant, profile, lexical features, embedding."""
    length_regressors: Floats = field(init=False, repr=False, compare=False)
    """(2L + 6,) What length is learned from: profile, lexical features, and beside numbers."""

    def __post_init__(self) -> None:
        """Make what follows from the rest."""
        object.__setattr__(self, "regressors", _regressors(self))
        object.__setattr__(self, "length_regressors", _length_regressors(self))


def lexical(text: str) -> Floats:
    """Return cheap features of *text* (L,), each about 0 to 1; of a long text, its ends count."""
    read = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    found = [find(read) for find in _FINDERS]
    counts = [
        *map(len, found),
        *(sum(map(read.count, characters)) for characters in _CHARACTERS.values()),
        *_word_counts(read),
    ]
    size, numbers = max(len(read), 1), [len(number) for number in found[0]]
    shape = (
        log1p(len(text)) / 8.0,
        min(size / (len(read.split()) + 1) / 8.0, 2.0),
        sum(numbers) / size * 3.0,
        min(max(numbers, default=0) / 4.0, 2.0),
        0.0 if read.isascii() else sum(c > "\x7f" for c in read) / size,
    )
    return np.array([*(log1p(count) / 2.0 for count in counts), *shape])


def lexical_profile(text: str) -> Features:
    """Profile *text* by rules alone, without embedding."""
    x = lexical(text)
    named = dict(zip(LEXICAL, x.tolist(), strict=True))
    tasks = _task_mix(named)
    return Features(
        embedding=np.zeros(EMBEDDING_SIZE),
        tasks=tasks,
        difficulty=_difficulty(named),
        expected_output_tokens=_output_tokens(named, tasks),
        prompt_tokens=len(text) // 4 + 1,
        lexical=x,
        pieces=pieces(text),
        source="lexical",
    )


def _regressors(features: Features) -> Floats:
    """Return what quality is learned from (D,).

    The embedding is projected to fewer dimensions by random signs, which keep distances
    (Achlioptas, 2003), and halved: few outcomes say more about form than about topic.
    """
    profile = (1.0, features.difficulty, log1p(max(features.expected_output_tokens, 0.0)) / 6.0)
    projected = features.embedding @ _PROJECTION
    return np.concatenate([profile, features.tasks, features.lexical, projected])


def _length_regressors(features: Features) -> Floats:
    """Return what length is learned from (2L + 6,), the profile's own expectation first.

    How many numbers there are says how long a model will reckon, and how much each adds depends on
    what is asked of them: hence the text once more, times the numbers in it.
    """
    log_tokens = log(clipped(features.expected_output_tokens, 1.0, LONGEST_TOKENS))
    profile = (log_tokens, 1.0, *features.tasks[:3].tolist(), features.difficulty)
    text = features.lexical
    return np.concatenate([profile, text, text[_NUMBERS] * text])


def _word_counts(text: str) -> list[int]:
    """Count the words of each class of _WORDS."""
    counts = [0] * len(_WORDS)
    for word in _WORD.findall(text.lower()):
        if (i := _CLASS_OF.get(word)) is not None:
            counts[i] += 1
    return counts


def _projection() -> Floats:
    """Draw signs (384, 64) that are the same on every machine and with every NumPy."""
    digest = shake_256(b"zeta: projection of embeddings").digest(EMBEDDING_SIZE * _PROJECTED // 8)
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))
    signs = 2.0 * bits.reshape(EMBEDDING_SIZE, _PROJECTED) - 1.0
    scaled: Floats = 0.5 * signs / np.sqrt(_PROJECTED)
    return scaled


_PROJECTION: Final = _projection()


def _task_mix(x: dict[str, float]) -> Floats:
    """Guess the task mix from named lexical features: softmax of evidence."""
    code = (
        1.5 * x["code_words"] + x["brackets"] + x["methods"] + 0.7 * x["calls"] + x["assignments"]
    )
    code += x["edits"] + 0.4 * x["quotes"] - x["operators"] - 0.5 * x["choices"]
    reasoning = 0.8 * x["numbers"] + x["operators"] + x["maths_words"] + x["measures"]
    reasoning += x["formulae"] - x["brackets"] - x["quotes"] - 0.5 * x["comparisons"]
    evidence = np.array([4.0 * code - 0.7, 4.0 * reasoning - 2.0, 1.0, -4.0])
    share: Floats = np.exp(evidence - evidence.max())
    share /= share.sum()
    return share


def _difficulty(x: dict[str, float]) -> float:
    """Guess difficulty in [0, 1]: more to read, more numbers and more steps are harder."""
    steps = 0.25 * x["numbers"] + 0.15 * x["operators"] + 0.1 * x["parentheses"]
    return min(max(0.6 * x["length"] - 0.15 + steps + 0.1 * x["formulae"], 0.0), 1.0)


def _output_tokens(x: dict[str, float], tasks: Floats) -> float:
    """Guess the answer's length: short for questions, long where writing is asked for."""
    usual = float(tasks @ (48.0, 48.0, 24.0, 1.0))
    return usual * (1.0 + 8.0 * x["writing"]) * (0.5 + x["length"])
