"""What can be read off a text without understanding it. F features.

Costs well under a millisecond, because long texts are read at both ends only.
"""

import re
from collections.abc import Sequence
from math import log1p
from typing import Final

import numpy as np
from numpy.typing import NDArray

_WINDOW_CHARACTERS: Final = 2048


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})\b", re.IGNORECASE)


_COUNTED: Final[Sequence[tuple[str, re.Pattern[str]]]] = (
    ("numbers", re.compile(r"\d+(?:\.\d+)?")),
    ("operations", re.compile(r"\d\s*[-+*/\u00d7\u00f7^%]\s*\(?\d")),
    ("equations", re.compile(r"[A-Za-z\d)]\s*=\s*[-\d(A-Za-z]")),
    ("calls", re.compile(r"[A-Za-z_]\w*\(")),
    ("subscripts", re.compile(r"[\w'\")\]]\[")),
    ("attributes", re.compile(r"[A-Za-z_\])]\.[a-z_]\w*")),
    ("snake_or_camel", re.compile(r"\b[a-z]+(?:_[a-z]+|[A-Z][a-z]+)\w*")),
    ("quoted", re.compile(r"'[^'\n]{0,40}'|\"[^\"\n]{0,40}\"")),
    ("code_marks", re.compile(r"[{}\[\]<>;`\\|&#$_]")),
    ("fences", re.compile(r"```|^\s{4,}\S", re.MULTILINE)),
    ("definitions", re.compile(r"\b(?:def|fn|func|function|class|lambda|const|let|var|import)\s")),
    ("traces", re.compile(r"Traceback|\b[A-Z]\w+(?:Error|Exception)\b|segfault|undefined")),
    ("sql", _words("select|insert|update|join|where|group by|table|sql|query|queries|schema")),
    (
        "languages",
        _words(
            "python|javascript|typescript|java|rust|go|golang|c|ruby|php|bash|shell|kotlin|swift|"
            "haskell|html|css|react|django|numpy|pandas|pytorch|docker|kubernetes|terraform|nginx|"
            "npm|git|regex|json|yaml|xml|graphql|mongodb|postgresql|linux|cron|cuda"
        ),
    ),
    (
        "coding",
        _words(
            "code|coding|function|method|script|program|bug|debug|compile|compiler|exception|"
            "refactor|implement|algorithm|unit tests?|api|endpoint|class|loop|array|list|string|"
            "dict|dictionary|variable|stack trace|recursion|snippet|output|returns?|prints?"
        ),
    ),
    (
        "quantities",
        _words(
            "how many|how much|how long|how far|total|sum|average|altogether|each|every|per|"
            "remain(?:s|ing)?|left|twice|half|double|triple|percent|cost|price|speed|times|"
            "more than|less than|fewer|calculate|compute|minutes?|hours?|days?|weeks?|miles?|"
            "metres?|meters?|km|kg|grams?|dollars?|euros?"
        ),
    ),
    (
        "deduction",
        _words(
            "prove|proof|show that|therefore|if|then|implies|suppose|assume|given that|must be|"
            "probability|theorem|solve|equation|integral|derivative|puzzle|riddle|step by step|"
            "deduce|logic|logical|schedule|plan|optimal|minimi[sz]e|maximi[sz]e|at least|exactly"
        ),
    ),
    (
        "asking",
        _words("who|what|where|when|why|which|how|is|are|does|can|could|should|would"),
    ),
    (
        "writing",
        _words(
            "write|essay|poem|story|email|letter|blog|summari[sz]e|summary|translate|rewrite|"
            "rephrase|paraphrase|explain|describe|suggest|recommend|tell me|draft|tips|ideas|"
            "list|compare|give me|help me|please|thanks|hello|hi"
        ),
    ),
    ("long_answer", _words("essay|article|story|detailed|in depth|chapter|guide|full|complete")),
    (
        "short_answer",
        _words("one word|just|only|yes or no|briefly|short|quick|name|answer with|single"),
    ),
    ("vectors", _words("embed|embedding|embeddings|vector|passage|query|similarity|index|search")),
    (
        "prefix",
        re.compile(r"^\s*(?:query|passage|search_query|search_document|embed)\s*:", re.IGNORECASE),
    ),
    ("addressing", _words("you|your|me|my|i|please|let's|we")),
    ("opening_question", re.compile(r"^\W*(?:who|what|where|when|why|which|how)\b", re.IGNORECASE)),
    (
        "opening_order",
        re.compile(
            r"^\W*(?:please |can you |could you )?(?:write|give|make|explain|find|show|tell|list|"
            r"create|translate|describe|suggest|implement|build|fix|add|convert|summari[sz]e|"
            r"rewrite|compare|name|solve|prove|calculate|compute|evaluate|design|help)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "opening_statement",
        re.compile(r"^\W*(?:the|a|an|in|our|this|these|most|every|it|he|she)\b", re.IGNORECASE),
    ),
    ("past_tense", re.compile(r"\b[a-z]{2,}ed\b|\b(?:was|were|had)\b")),
    ("question_marks", re.compile(r"\?")),
    ("sentence_ends", re.compile(r"[.!](?:\s|$)")),
    ("commas", re.compile(r",")),
    ("lines", re.compile(r"\n")),
)
_SHARES: Final[Sequence[tuple[str, re.Pattern[str]]]] = (
    ("digit_share", re.compile(r"\d")),
    ("upper_share", re.compile(r"[A-Z]")),
    ("mark_share", re.compile(r"[^\w\s]")),
    ("space_share", re.compile(r"\s")),
    ("foreign_share", re.compile(r"[^\x00-\x7f]")),
)
NAMES: Final = (
    "log_characters",
    "log_words",
    "word_length",
    "ends_with_question",
    "ends_with_stop",
    *(name for name, _ in _COUNTED),
    *(name for name, _ in _SHARES),
)
"""Of the features, in order."""


def lexical(text: str) -> NDArray[np.float32]:
    """Return the features of *text*, (F,): logarithms of counts, shares in [0, 1]."""
    read = text
    if len(text) > 2 * _WINDOW_CHARACTERS:
        read = f"{text[:_WINDOW_CHARACTERS]}\n{text[-_WINDOW_CHARACTERS:]}"
    words, stripped = read.split(), read.rstrip()
    return np.array(
        [
            log1p(len(text)),
            log1p(len(words) * len(text) / max(len(read), 1)),
            len(read) / (len(words) + 1),
            stripped.endswith("?"),
            stripped.endswith((".", "!")),
            *(log1p(len(pattern.findall(read))) for _, pattern in _COUNTED),
            *(len(pattern.findall(read)) / (len(read) + 1) for _, pattern in _SHARES),
        ],
        np.float32,
    )
