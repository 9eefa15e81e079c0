"""Draw Python: expressions to evaluate, dictionaries to read, one-line functions to finish.

An answer is what `print` shows, so a string comes without quotes.
"""

import re
from random import Random
from typing import Final, TypeAlias

from zeta_client.tasks.editing import a_word
from zeta_client.tasks.task import Draft

WORD: Final = re.compile(r"[A-Za-z]+")
Shown: TypeAlias = tuple[str, object, float]

ASK_EXPRESSION: Final = (
    "What does {e} return in Python?",
    "What is the value of {e}?",
    "Evaluate {e}",
    "In Python, what is {e}?",
    "What does print({e}) print?",
    "What would {e} give me in Python?",
    "Quick Python question: what is {e}?",
    "Tell me the result of {e} in Python.",
    "I typed {e} into the Python shell. What comes out?",
    "Which output does print({e}) produce?",
    "Python: {e}",
    "What is the output of this code?\nprint({e})",
)


def string_expression(rng: Random) -> Draft:
    """Draw an expression over a short string."""
    w, other = a_word(rng), a_word(rng)
    i, j = sorted(rng.sample(range(len(w)), 2))
    letter, new, n = rng.choice(w), rng.choice("aeioxz"), rng.randrange(2, 4)
    prefix, maybe = rng.choice((w, other))[:2], rng.choice((letter, new))
    shown: tuple[Shown, ...] = (
        (f"'{w}'[::-1]", w[::-1], 0.6),
        (f"'{w}'[{i}]", w[i], 0.3),
        (f"'{w}'[-{i + 1}]", w[-i - 1], 0.4),
        (f"'{w}'[{i}:{j}]", w[i:j], 0.6),
        (f"'{w}'[:{j}]", w[:j], 0.4),
        (f"'{w}'[{j}:]", w[j:], 0.5),
        (f"'{w}'.upper()", w.upper(), 0.3),
        (f"len('{w}')", len(w), 0.3),
        (f"len('{w}' + '{other}')", len(w) + len(other), 0.7),
        (f"'{w}' + '{other}'", w + other, 0.3),
        (f"'{w[:3]}' * {n}", w[:3] * n, 0.4),
        (f"'{w}'.count('{letter}')", w.count(letter), 0.4),
        (f"'{w}'.index('{letter}')", w.index(letter), 0.5),
        (f"'{w}'.replace('{letter}', '{new}')", w.replace(letter, new), 0.5),
        (f"'{w}'.startswith('{prefix}')", w.startswith(prefix), 0.5),
        (f"'{maybe}' in '{w}'", maybe in w, 0.4),
        (f"'-'.join('{w[:4]}')", "-".join(w[:4]), 0.5),
        (f"''.join(sorted('{w[:5]}'))", "".join(sorted(w[:5])), 0.8),
    )
    return _asked(rng, rng.choice(shown))


def list_expression(rng: Random) -> Draft:
    """Draw an expression over a list of small numbers."""
    xs = [rng.randrange(1, 20) for _ in range(rng.randrange(3, 6))]
    i, j = sorted(rng.sample(range(len(xs)), 2))
    k, start = rng.randrange(2, 10), rng.randrange(6)
    stop, maybe = start + rng.randrange(2, 6), rng.choice((k, xs[j]))
    shown: tuple[Shown, ...] = (
        (f"sum({xs[:3]})", sum(xs[:3]), 0.6),
        (f"max({xs})", max(xs), 0.3),
        (f"min({xs})", min(xs), 0.3),
        (f"len({xs})", len(xs), 0.2),
        (f"sorted({xs})", sorted(xs), 0.7),
        (f"sorted({xs}, reverse=True)", sorted(xs, reverse=True), 0.8),
        (f"{xs}[::-1]", xs[::-1], 0.5),
        (f"{xs}[{i}]", xs[i], 0.3),
        (f"{xs}[-{i + 1}]", xs[-i - 1], 0.4),
        (f"{xs}[{i}:{j}]", xs[i:j], 0.5),
        (f"{xs}[{j}:]", xs[j:], 0.4),
        (f"{xs[:2]} + {xs[2:]}", xs, 0.4),
        (f"{xs}.count({xs[0]})", xs.count(xs[0]), 0.4),
        (f"{xs}.index({xs[j]})", xs.index(xs[j]), 0.5),
        (f"{maybe} in {xs}", maybe in xs, 0.4),
        (f"[x + {k} for x in {xs[:4]}]", [x + k for x in xs[:4]], 0.7),
        (f"[x * 2 for x in {xs[:4]}]", [x * 2 for x in xs[:4]], 0.7),
        (f"[x for x in {xs} if x > {k}]", [x for x in xs if x > k], 0.6),
        (f"[x for x in {xs} if x % 2 == 0]", [x for x in xs if x % 2 == 0], 0.6),
        (f"list(range({start}, {stop}))", list(range(start, stop)), 0.4),
        (f"len(range({start}, {stop * 2}))", stop * 2 - start, 0.5),
    )
    return _asked(rng, rng.choice(shown))


ASK_DICT: Final = (
    "Given {d}, what is {e}?",
    "{d}\nprint({e})\nWhat does this print?",
    "If {d}, what does {e} return?",
    "In Python {d}. What is {e}?",
    "What is {e} after {d}?",
    "Let {d}. Evaluate {e}",
)


def dict_expression(rng: Random) -> Draft:
    """Draw an expression over a small dictionary that is defined first."""
    keys = rng.sample(("a", "b", "c", "x", "y", "z", "cat", "dog", "red", "blue"), 3)
    d = {key: rng.randrange(1, 30) for key in keys[: rng.randrange(2, 4)]}
    name, key, maybe = rng.choice(("d", "data", "m")), rng.choice(list(d)), rng.choice(keys)
    k = rng.randrange(1, 10)
    expression, value, difficulty = rng.choice(
        (
            (f"{name}['{key}']", d[key], 0.2),
            (f"{name}['{key}'] + {k}", d[key] + k, 0.5),
            (f"len({name})", len(d), 0.2),
            (f"sum({name}.values())", sum(d.values()), 0.7),
            (f"max({name}.values())", max(d.values()), 0.4),
            (f"list({name})", list(d), 0.3),
            (f"list({name}.values())", list(d.values()), 0.3),
            (f"sorted({name})", sorted(d), 0.5),
            (f"'{maybe}' in {name}", maybe in d, 0.3),
            (f"{name}.get('{maybe}', 0)", d.get(maybe, 0), 0.4),
        )
    )
    return Draft(
        problem=f"{d}{expression}",
        prompt=rng.choice(ASK_DICT).format(d=f"{name} = {d}", e=expression),
        answer=str(value),
        difficulty=difficulty,
    )


# name, parameters, body, what it does in words; p and q are parameters, K a number
FUNCTIONS: Final = (
    ("add_K", "p", "p + K", "adds K to p"),
    ("subtract_K", "p", "p - K", "subtracts K from p"),
    ("times_K", "p", "p * K", "multiplies p by K"),
    ("divide_by_K", "p", "p / K", "divides p by K"),
    ("remainder_of_K", "p", "p % K", "gives the remainder of p divided by K"),
    ("power_K", "p", "p ** K", "raises p to the power K"),
    ("is_divisible_by_K", "p", "p % K == 0", "says whether p is divisible by K"),
    ("is_more_than_K", "p", "p > K", "says whether p is greater than K"),
    ("is_less_than_K", "p", "p < K", "says whether p is smaller than K"),
    ("equals_K", "p", "p == K", "says whether p equals K"),
    ("at_most_K", "p", "min(p, K)", "caps p at K"),
    ("at_least_K", "p", "max(p, K)", "raises p to at least K"),
    ("first_K", "p", "p[:K]", "returns the first K items of p"),
    ("last_K", "p", "p[-K:]", "returns the last K items of p"),
    ("drop_K", "p", "p[K:]", "leaves out the first K items of p"),
    ("item_K", "p", "p[K]", "returns the item of p at index K"),
    ("has_K_items", "p", "len(p) == K", "says whether p has K items"),
    ("is_longer_than_K", "p", "len(p) > K", "says whether p is longer than K"),
    ("repeat_K", "p", "p * K", "repeats p K times"),
    ("add_K_to_all", "p", "[x + K for x in p]", "adds K to every item of p"),
    ("scale_by_K", "p", "[x * K for x in p]", "multiplies every item of p by K"),
    ("keep_above_K", "p", "[x for x in p if x > K]", "keeps the items of p above K"),
    ("contains_K", "p", "K in p", "says whether K is in p"),
    ("count_K", "p", "p.count(K)", "counts how often K occurs in p"),
    ("sum_plus_K", "p", "sum(p) + K", "adds K to the sum of p"),
    ("add", "p, q", "p + q", "adds p and q"),
    ("difference", "p, q", "abs(p - q)", "returns the absolute difference of p and q"),
    ("product", "p, q", "p * q", "multiplies p and q"),
    ("larger", "p, q", "max(p, q)", "returns the larger of p and q"),
    ("smaller", "p, q", "min(p, q)", "returns the smaller of p and q"),
    ("mean", "p, q", "(p + q) / 2", "returns the mean of p and q"),
    ("is_longer", "p, q", "len(p) > len(q)", "says whether p is longer than q"),
    ("starts_with", "p, q", "p.startswith(q)", "says whether p starts with q"),
    ("total_length", "p, q", "len(p) + len(q)", "returns the length of p and q together"),
    ("pairs", "p, q", "list(zip(p, q))", "pairs up the items of p and q"),
)
PARAMETERS: Final = ("a", "b", "n", "m", "s", "t", "v", "w", "items", "value", "text", "data")
ASK_FUNCTION: Final = (
    "Complete this Python function:\ndef {name}({p}):\n    return",
    "Finish the function.\ndef {name}({p}):\n    return",
    "def {name}({p}):\n    return ...\nWhat belongs after return?",
    "Fill in the return value of def {name}({p}):",
    "Write the expression that a Python function of {p} returns if it {what}.",
    "A Python function f({p}) {what}. What does it return?",
    "Which expression comes after return in a function f({p}) that {what}?",
)


def function_body(rng: Random) -> Draft:
    """Draw a one-line function; the answer is the expression after `return`."""
    name, parameters, body, what = rng.choice(FUNCTIONS)
    p, q = rng.sample(PARAMETERS, 2)
    k = str(rng.randrange(2, 10))
    parameters, body, what = (_renamed(text, p, q, k) for text in (parameters, body, what))
    name = name.replace("K", k)
    return Draft(
        problem=f"{name}({parameters})",
        prompt=rng.choice(ASK_FUNCTION).format(name=name, p=parameters, what=what),
        answer=body,
        difficulty=0.3 + 0.02 * len(body),
    )


def _renamed(text: str, p: str, q: str, k: str) -> str:
    """Put names for the placeholders, each a word of its own."""
    names = {"p": p, "q": q, "K": k}
    return WORD.sub(lambda found: names.get(found[0], found[0]), text)


def _asked(rng: Random, shown: Shown) -> Draft:
    expression, value, difficulty = shown
    return Draft(
        problem=expression,
        prompt=rng.choice(ASK_EXPRESSION).format(e=expression),
        answer=str(value),
        difficulty=difficulty,
    )
