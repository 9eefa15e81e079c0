"""Draw string manipulation asked for in plain words."""

from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

from zeta_client.tasks.lexicon import WORDS
from zeta_client.tasks.task import Draft

Edit: TypeAlias = tuple[tuple[str, ...], str, float]
SHARE_OF_REAL_WORDS: Final = 0.6
ORDINALS: Final = ("first", "second", "third", "fourth", "fifth")


def string_edit(rng: Random) -> Draft:
    """Draw one edit of a quoted word; the answer is the bare result."""
    word, quote = a_word(rng), rng.choice("'\"")
    wordings, answer, difficulty = rng.choice(EDITS)(rng, word)
    wording = rng.choice(wordings)
    return Draft(
        problem=f"{wordings[0]} {word}",
        prompt=wording.replace("{w}", f"{quote}{word}{quote}"),
        answer=answer,
        difficulty=difficulty,
    )


def a_word(rng: Random) -> str:
    """Return a word, sometimes an invented one, so that spelling cannot be learnt by heart."""
    if rng.random() < SHARE_OF_REAL_WORDS:
        return rng.choice(WORDS)
    syllables = (
        rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 3)))
    )
    return "".join(syllables) + rng.choice(("", "n", "r", "s", "t"))


def _reverse(_rng: Random, word: str) -> Edit:
    wordings = (
        "Reverse the string {w}.",
        "Spell {w} backwards.",
        "Write {w} in reverse.",
        "What is {w} backwards?",
        "Turn the letters of {w} around.",
    )
    return wordings, word[::-1], 0.5


def _upper(_rng: Random, word: str) -> Edit:
    wordings = (
        "Write {w} in capital letters.",
        "Convert {w} to upper case.",
        "Make {w} all caps.",
        "Put {w} into uppercase.",
    )
    return wordings, word.upper(), 0.25


def _length(_rng: Random, word: str) -> Edit:
    wordings = (
        "How many letters are in {w}?",
        "Count the letters of {w}.",
        "How long is the string {w}?",
        "How many characters does {w} have?",
    )
    return wordings, str(len(word)), 0.3


def _count(rng: Random, word: str) -> Edit:
    letter = rng.choice(word)
    wordings = (
        f"How many times does '{letter}' occur in {{w}}?",
        f"Count the letter '{letter}' in {{w}}.",
        f"How often is there a '{letter}' in {{w}}?",
    )
    return wordings, str(word.count(letter)), 0.4


def _letter(rng: Random, word: str) -> Edit:
    place = rng.randrange(min(len(word), len(ORDINALS)))
    wordings = (
        f"What is the {ORDINALS[place]} letter of {{w}}?",
        f"Which letter comes {ORDINALS[place]} in {{w}}?",
        f"Give me the {ORDINALS[place]} character of {{w}}.",
    )
    return wordings, word[place], 0.25


def _last(_rng: Random, word: str) -> Edit:
    wordings = (
        "What is the last letter of {w}?",
        "With which letter does {w} end?",
        "Give me the final character of {w}.",
    )
    return wordings, word[-1], 0.2


def _replace(rng: Random, word: str) -> Edit:
    old, new = rng.choice(word), rng.choice("aeioxz")
    wordings = (
        f"Replace every '{old}' by '{new}' in {{w}}.",
        f"Swap each '{old}' for '{new}' in {{w}}.",
        f"In {{w}}, change '{old}' to '{new}'.",
    )
    return wordings, word.replace(old, new), 0.5


def _remove(rng: Random, word: str) -> Edit:
    letter = rng.choice(word)
    wordings = (
        f"Remove every '{letter}' from {{w}}.",
        f"Delete the letter '{letter}' from {{w}}.",
        f"Write {{w}} without the letter '{letter}'.",
    )
    return wordings, word.replace(letter, ""), 0.5


def _join(rng: Random, word: str) -> Edit:
    other = a_word(rng)
    wordings = (
        f"Join {{w}} and '{other}' with a hyphen.",
        f"Put a hyphen between {{w}} and '{other}'.",
        f"Connect {{w}} to '{other}' with a dash.",
    )
    return wordings, f"{word}-{other}", 0.4


def _twice(_rng: Random, word: str) -> Edit:
    wordings = (
        "Repeat {w} twice without a space.",
        "Write {w} two times in a row, with no space.",
        "Double the string {w}.",
    )
    return wordings, word * 2, 0.4


EDITS: Final[tuple[Callable[[Random, str], Edit], ...]] = (
    _reverse,
    _upper,
    _length,
    _count,
    _letter,
    _last,
    _replace,
    _remove,
    _join,
    _twice,
)
