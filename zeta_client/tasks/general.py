"""Draw what needs knowing rather than working out: facts, categories, comparisons."""

from collections.abc import Mapping
from random import Random
from typing import Final

from zeta_client.tasks import lexicon
from zeta_client.tasks.task import Draft

# what is asked about → what is answered, and the wordings;
# {x} is the thing asked about, {a_x} the same with its article
FACTS: Final[tuple[tuple[Mapping[str, str], tuple[str, ...]], ...]] = (
    (
        lexicon.CAPITALS,
        (
            "What is the capital of {x}?",
            "Which city is the capital of {x}?",
            "Name the capital of {x}.",
            "What's the capital city of {x}?",
            "{x}'s capital is called what?",
            "Tell me the capital of {x}.",
            "Which city is the seat of government of {x}?",
            "I am travelling to the capital of {x}. Which city is that?",
        ),
    ),
    (
        lexicon.OPPOSITES,
        (
            "What is the opposite of {x}?",
            "Give me the opposite of '{x}'.",
            "Which word means the opposite of {x}?",
            "What's the antonym of {x}?",
            "Not {x}, but the opposite. Which word is that?",
            "Name the opposite of {x}.",
        ),
    ),
    (
        lexicon.COLOURS,
        (
            "What colour is {x}?",
            "Which colour does {x} have?",
            "What is the usual colour of {x}?",
            "Tell me the colour of {x}.",
            "In which colour would you paint {x}?",
        ),
    ),
    (
        lexicon.YOUNG,
        (
            "What do you call a young {x}?",
            "What is a baby {x} called?",
            "What is the name for the young of {a_x}?",
            "Suppose {a_x} has a baby. What is it called?",
        ),
    ),
    (
        lexicon.SOUNDS,
        (
            "What sound does {a_x} make?",
            "Which verb describes the sound of {a_x}?",
            "How does {a_x} sound?",
            "Name the noise {a_x} makes.",
        ),
    ),
    (
        lexicon.LEGS,
        (
            "How many legs does {a_x} have?",
            "On how many legs does {a_x} walk?",
            "What is the number of legs of {a_x}?",
            "Count the legs of {a_x}.",
        ),
    ),
    (
        lexicon.NEXT_DAY,
        (
            "Which day follows {x}?",
            "What day comes right after {x}?",
            "What is the next day after {x}?",
            "If today is {x}, what is tomorrow?",
        ),
    ),
)
MANNERS: Final = (
    "{q}",
    "{q}",
    "{q}",
    "Hi! {q}",
    "Quick question: {q}",
    "{q} Thanks!",
    "Please: {q}",
)


def fact(rng: Random) -> Draft:
    """Draw a fact of the closed set; a problem is fact and wording together."""
    answers, wordings = rng.choices(FACTS, [len(answers) for answers, _ in FACTS])[0]
    asked = rng.choice(sorted(answers))
    prompt = _politely(rng, rng.choice(wordings).format(x=asked, a_x=_with_article(asked)))
    return Draft(problem=prompt, prompt=prompt, answer=answers[asked], difficulty=0.1)


ASK_CATEGORY: Final = (
    "Is {x} {a} or {b}?",
    "What is {x}: {a} or {b}?",
    "Does {x} count as {a} or as {b}?",
    "Would you say that {x} is {a} or {b}?",
    "{x}: is that {a} or {b}?",
)


def category(rng: Random) -> Draft:
    """Draw a word and two kinds of thing, of which one is right."""
    right, wrong = rng.sample(sorted(lexicon.CATEGORIES), 2)
    word = rng.choice(lexicon.CATEGORIES[right])
    first, second = rng.sample((right, wrong), 2)
    asked = rng.choice(ASK_CATEGORY).format(
        x=f"'{word}'", a=_with_article(first), b=_with_article(second)
    )
    return Draft(
        problem=f"{word}:{first}:{second}",
        prompt=_politely(rng, asked),
        answer=right,
        difficulty=0.15,
    )


PAIR: Final = 2
SHARE_OF_LARGEST: Final = 0.5
# by whether the largest is asked for and whether there are only two
EXTREMES: Final = {
    (True, True): ("larger", "bigger"),
    (False, True): ("smaller", "lower"),
    (True, False): ("largest", "biggest", "highest"),
    (False, False): ("smallest", "lowest"),
}
ASK_EXTREME: Final = (
    "Which is {extreme}: {numbers}?",
    "Which number is the {extreme}, {numbers}?",
    "Pick the {extreme} of {numbers}.",
    "Of {numbers}, which is the {extreme}?",
    "Name the {extreme} number: {numbers}.",
)


def compare(rng: Random) -> Draft:
    """Draw a few numbers of which one is to be picked."""
    count, is_largest = rng.choice((PAIR, PAIR, 3, 4)), rng.random() < SHARE_OF_LARGEST
    numbers = rng.sample(range(1, 100), count)
    extreme = rng.choice(EXTREMES[is_largest, count == PAIR])
    listed = ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}"
    return Draft(
        problem=f"{'max' if is_largest else 'min'} {numbers}",
        prompt=rng.choice(ASK_EXTREME).format(extreme=extreme, numbers=listed),
        answer=str((max if is_largest else min)(numbers)),
        difficulty=0.1 * count,
    )


def _politely(rng: Random, question: str) -> str:
    return rng.choice(MANNERS).format(q=question)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
