"""Draw word problems: a short story of small sums, and the sums it comes to."""

from random import Random
from typing import Final

from zeta_client.tasks.lexicon import PEOPLE, THINGS
from zeta_client.tasks.task import Draft

MAX_EVENTS: Final = 4
MAX_BEFORE_BAGS: Final = 56
MIN_TO_LOSE_FROM: Final = 2
SHARE_OF_LOSSES: Final = 0.45
SHARE_OF_GAINS: Final = 0.35

OPENINGS: Final = (
    "{who} has {n} {things}.",
    "{who} starts with {n} {things}.",
    "{who} owns {n} {things}.",
    "There are {n} {things} on {who}'s table.",
    "In the morning {who} has {n} {things}.",
)
GAINS: Final = (
    "{who} buys {n} more.",
    "{who} finds {n} more.",
    "A friend gives {who} {n}.",
    "{who} gets {n} from a neighbour.",
    "Then {n} more arrive.",
)
LOSSES: Final = (
    "{who} gives away {n}.",
    "{who} loses {n}.",
    "{who} sells {n} of them.",
    "Then {n} are lost.",
    "{who} hands {n} to a friend.",
)
PACKS: Final = (
    "{who} buys {b} bags of {n}.",
    "{who} gets {b} boxes with {n} each.",
    "{b} friends each give {who} {n}.",
)
QUESTIONS: Final = (
    "How many {things} does {who} have now?",
    "How many {things} are left?",
    "How many {things} does {who} have in the end?",
    "How many {things} is that now?",
)

PACKED: Final = (
    "There are {a} boxes with {b} {things} each. How many {things} are there?",
    "{who} packs {a} bags with {b} {things} in each. How many {things} is that?",
    "Each of {a} children has {b} {things}. How many {things} do they have together?",
    "A shelf holds {b} {things}. How many {things} do {a} shelves hold?",
)
SHARED: Final = (
    "{who} shares {a} {things} equally among {b} friends. How many does each friend get?",
    "{a} {things} are split evenly into {b} boxes. How many are in each box?",
    "If {b} people divide {a} {things} equally, how many does each person get?",
)
PRICED: Final = (
    "{things} cost {b} dollars apiece. How much do {a} of them and a bag for {c} dollars cost?",
    "{who} pays {b} dollars for each of {a} {things} and {c} for delivery. How much is that?",
    "A ticket costs {b} euros. {who} buys {a} and a drink for {c} euros. What is the total?",
)
CHANGE: Final = (
    "{who} buys {a} {things} at {b} dollars each and pays with {c}. How much is the change?",
    "{who} has {c} dollars and buys {a} {things} for {b} dollars each. How many dollars are left?",
)


def word_problem(rng: Random) -> Draft:
    """Draw a story: mostly events one after another, else a product, a share or a price."""
    tell = rng.choices((_events, _packed, _shared, _priced, _change), (6, 1, 1, 1, 1))[0]
    return tell(rng)


def _events(rng: Random) -> Draft:
    n_events, who, things = rng.randrange(1, MAX_EVENTS + 1), rng.choice(PEOPLE), rng.choice(THINGS)
    held = rng.randrange(3, 60)
    sentences, steps, sums = [rng.choice(OPENINGS).format(who=who, n=held, things=things)], [], ""
    sums += str(held)
    for _ in range(n_events):
        sentence, change, product = _event(rng, held)
        sentences.append(sentence.replace("{who}", who))
        steps += [product] if product else []
        steps.append(f"{held}{change:+d}={held + change}")
        sums += product or f"{change:+d}"
        held += change
    sentences.append(rng.choice(QUESTIONS).format(who=who, things=things))
    return Draft(
        problem=sums,
        prompt=" ".join(sentences),
        answer=str(held),
        difficulty=min(1.0, 0.15 + 0.2 * len(steps)),
        solution="\n".join(steps),
    )


def _event(rng: Random, held: int) -> tuple[str, int, str]:
    """Return a sentence, the change it makes, and the product to do first, if there is one."""
    chance = rng.random()
    if chance < SHARE_OF_LOSSES and held > MIN_TO_LOSE_FROM:
        lost = rng.randrange(1, min(held, 50))
        return rng.choice(LOSSES).replace("{n}", str(lost)), -lost, ""
    if chance < SHARE_OF_LOSSES + SHARE_OF_GAINS or held > MAX_BEFORE_BAGS:
        gained = rng.randrange(2, 50)
        return rng.choice(GAINS).replace("{n}", str(gained)), gained, ""
    bags, each = rng.randrange(2, 10), rng.randrange(2, 13)
    sentence = rng.choice(PACKS).replace("{b}", str(bags)).replace("{n}", str(each))
    return sentence, bags * each, f"{bags}*{each}={bags * each}"


def _packed(rng: Random) -> Draft:
    a, b = rng.randrange(2, 13), rng.randrange(2, 13)
    return _told(rng, PACKED, f"{a}*{b}", (a, b, 0), [f"{a}*{b}={a * b}"])


def _shared(rng: Random) -> Draft:
    b, each = rng.randrange(2, 13), rng.randrange(2, 13)
    a = b * each
    return _told(rng, SHARED, f"{a}/{b}", (a, b, 0), [f"{a}/{b}={each}"])


def _priced(rng: Random) -> Draft:
    a, b, c = rng.randrange(2, 13), rng.randrange(2, 13), rng.randrange(2, 30)
    steps = [f"{a}*{b}={a * b}", f"{a * b}+{c}={a * b + c}"]
    return _told(rng, PRICED, f"{a}*{b}+{c}", (a, b, c), steps)


def _change(rng: Random) -> Draft:
    a, b = rng.randrange(2, 13), rng.randrange(2, 13)
    c = a * b + rng.randrange(1, 40)
    steps = [f"{a}*{b}={a * b}", f"{c}-{a * b}={c - a * b}"]
    return _told(rng, CHANGE, f"{c}-{a}*{b}", (a, b, c), steps)


def _told(
    rng: Random, tellings: tuple[str, ...], sums: str, abc: tuple[int, int, int], steps: list[str]
) -> Draft:
    a, b, c = abc
    telling = rng.choice(tellings)
    prompt = telling.format(a=a, b=b, c=c, who=rng.choice(PEOPLE), things=rng.choice(THINGS))
    return Draft(
        problem=sums,
        prompt=prompt[0].upper() + prompt[1:],
        answer=steps[-1].rpartition("=")[2],
        difficulty=0.15 + 0.2 * len(steps),
        solution="\n".join(steps),
    )
