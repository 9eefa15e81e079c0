"""Draw sums: expressions of growing length, units, dates. Each carries its steps.

A scratchpad line is `a+b=c` without spaces, one operation per line, in the order in which the
operations can be done; the last line ends in the answer.
"""

from random import Random
from typing import Final, TypeAlias

from zeta_client.tasks.lexicon import DAYS, MONTHS
from zeta_client.tasks.task import Draft

MAX_STEPS: Final = 6
MAX_VALUE: Final = 300
MAX_FACTOR: Final = 12
SHARE_OF_SMALL_NUMBERS: Final = 0.5
SHARE_TO_THE_LEFT: Final = 0.6
SHARE_LATER: Final = 0.7
HOUR_MINUTES: Final = 60

ASK_VALUE: Final = (
    "What is {e}?",
    "Compute {e}.",
    "Calculate {e}",
    "Work out {e}.",
    "How much is {e}?",
    "Please evaluate {e}.",
    "What does {e} come to?",
    "Can you work out {e} for me?",
    "I need the value of {e}.",
    "Solve {e}",
    "{e} = ?",
    "What do I get for {e}?",
    "Tell me the result of {e}.",
    "Hey, what is {e}?",
    "Could you calculate {e}?",
    "Help me with my homework: {e}",
)


def arithmetic(rng: Random) -> Draft:
    """Draw an expression of one to six operations whose every step stays small and positive."""
    n_steps = rng.choice((1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, MAX_STEPS))
    text, value, steps = _expression(rng, n_steps)
    return Draft(
        problem=text,
        prompt=rng.choice(ASK_VALUE).format(e=text),
        answer=str(value),
        difficulty=n_steps / MAX_STEPS,
        solution="\n".join(steps),
    )


Tree: TypeAlias = "int | tuple[Tree, str, Tree]"

PRECEDENCE: Final = {"+": 1, "-": 1, "*": 2}


def _expression(rng: Random, n_steps: int) -> tuple[str, int, list[str]]:
    while True:
        tree = _tree(rng, n_steps)
        steps: list[str] = []
        value = _reduce(tree, steps)
        if value is not None:
            return _text(tree), value, steps


def _tree(rng: Random, n_steps: int) -> Tree:
    """Grow a random expression, mostly to the left, as people write sums."""
    if n_steps == 0:
        return (
            rng.randrange(1, 13) if rng.random() < SHARE_OF_SMALL_NUMBERS else rng.randrange(1, 60)
        )
    to_the_left = n_steps - 1 if rng.random() < SHARE_TO_THE_LEFT else rng.randrange(n_steps)
    operator = rng.choice("++--*")
    return _tree(rng, to_the_left), operator, _tree(rng, n_steps - 1 - to_the_left)


def _reduce(tree: Tree, steps: list[str]) -> int | None:
    """Return the value and note each step; None where a step is too large to do in the head."""
    if isinstance(tree, int):
        return tree
    left, operator, right = _reduce(tree[0], steps), tree[1], _reduce(tree[2], steps)
    if left is None or right is None:
        return None
    if operator == "*" and max(left, right) > MAX_FACTOR:
        return None
    value = {"+": left + right, "-": left - right, "*": left * right}[operator]
    steps.append(f"{left}{operator}{right}={value}")
    return value if 0 <= value <= MAX_VALUE else None


def _text(tree: Tree) -> str:
    if isinstance(tree, int):
        return str(tree)
    left, operator, right = tree
    return f"{_operand(left, operator)} {operator} {_operand(right, operator, is_right=True)}"


def _operand(tree: Tree, operator: str, *, is_right: bool = False) -> str:
    if isinstance(tree, int):
        return str(tree)
    binds_weaker = PRECEDENCE[tree[1]] < PRECEDENCE[operator]
    needs_brackets = binds_weaker or (is_right and PRECEDENCE[tree[1]] == PRECEDENCE[operator])
    return f"({_text(tree)})" if needs_brackets else _text(tree)


# large unit, small unit, how many small in one large, the largest count asked for
UNITS: Final = (
    ("hours", "minutes", 60, 12),
    ("minutes", "seconds", 60, 12),
    ("days", "hours", 24, 10),
    ("weeks", "days", 7, 12),
    ("years", "months", 12, 12),
    ("feet", "inches", 12, 12),
    ("metres", "centimetres", 100, 20),
    ("dollars", "cents", 100, 20),
    ("pounds", "ounces", 16, 9),
    ("centimetres", "millimetres", 10, 40),
)
ASK_UNIT: Final = (
    "How many {small} are in {amount}?",
    "Convert {amount} to {small}.",
    "What is {amount} in {small}?",
    "Express {amount} in {small}.",
    "{amount} is how many {small}?",
    "I have {amount}. How many {small} is that?",
    "Please turn {amount} into {small}.",
    "How many {small} make up {amount}?",
    "Give me {amount} in {small}.",
)


def unit(rng: Random) -> Draft:
    """Draw a conversion, with a remainder or a second amount to add in the harder ones."""
    large, small, ratio, most = rng.choice(UNITS)
    whole, n_steps = rng.randrange(2, most + 1), rng.choice((1, 2, 2, 3))
    total = whole * ratio
    amount, steps = f"{whole} {large}", [f"{whole}*{ratio}={total}"]
    for joint in (" and ", " plus ")[: n_steps - 1]:
        extra = rng.randrange(2, max(ratio, 20))
        amount += f"{joint}{extra} {small}"
        steps.append(f"{total}+{extra}={total + extra}")
        total += extra
    return Draft(
        problem=amount + small,
        prompt=_capital(rng.choice(ASK_UNIT).format(amount=amount, small=small)),
        answer=str(total),
        difficulty=0.2 + 0.2 * n_steps,
        solution="\n".join(steps),
    )


def date(rng: Random) -> Draft:
    """Draw a sum over weekdays, calendar dates or clock times."""
    return rng.choice((_weekday, _day_of_month, _span, _clock))(rng)


def _weekday(rng: Random) -> Draft:
    start, n_days, is_later = rng.randrange(7), rng.randrange(2, 41), rng.random() < SHARE_LATER
    shift = n_days % 7
    walk = [DAYS[(start + (i if is_later else -i)) % 7] for i in range(shift + 1)]
    ask = rng.choice(
        (
            "What day of the week is {n} days {way} {day}?",
            "Which day comes {n} days {way} {day}?",
            "If it is {day}, what day {be} {n} days {when}?",
            "Today is {day}. What weekday {be} {n} days {when}?",
            "It's {day} now. Which day {be} {n} days {when}?",
        )
    )
    return Draft(
        problem=f"{DAYS[start]}{'+' if is_later else '-'}{n_days}",
        prompt=ask.format(
            n=n_days,
            day=DAYS[start],
            way="after" if is_later else "before",
            be="will it be" if is_later else "was it",
            when="later" if is_later else "earlier",
        ),
        answer=walk[-1],
        difficulty=0.5 if n_days < len(DAYS) else 0.7,
        solution=f"{n_days}%7={shift}\n" + ",".join(walk),
    )


def _day_of_month(rng: Random) -> Draft:
    month = rng.randrange(12)
    (name, length), (following, _) = MONTHS[month], MONTHS[(month + 1) % 12]
    day, n_days = rng.randrange(1, length + 1), rng.randrange(3, 28)
    total = day + n_days
    steps = [f"{day}+{n_days}={total}"]
    if total > length:
        steps.append(f"{total}-{length}={total - length}")
    answer = f"{name} {total}" if total <= length else f"{following} {total - length}"
    ask = rng.choice(
        (
            "What date is {n} days after {date}?",
            "Which date comes {n} days after {date}?",
            "Today is {date}. What is the date in {n} days?",
            "I ordered on {date} and delivery takes {n} days. On which date does it arrive?",
            "If it is {date} now, what will the date be {n} days later?",
        )
    )
    return Draft(
        problem=f"{name} {day}+{n_days}",
        prompt=ask.format(n=n_days, date=f"{name} {day}"),
        answer=answer,
        difficulty=0.5 + 0.3 * (total > length),
        solution="\n".join(steps),
    )


def _span(rng: Random) -> Draft:
    name, length = rng.choice(MONTHS)
    first, last = sorted(rng.sample(range(1, length + 1), 2))
    ask = rng.choice(
        (
            "How many days are there from {a} to {b}?",
            "How many days after {a} is {b}?",
            "How many days lie between {a} and {b}?",
            "Today is {a}. How many days is it until {b}?",
        )
    )
    return Draft(
        problem=f"{name} {first}-{last}",
        prompt=ask.format(a=f"{name} {first}", b=f"{name} {last}"),
        answer=str(last - first),
        difficulty=0.4,
        solution=f"{last}-{first}={last - first}",
    )


def _clock(rng: Random) -> Draft:
    hour, minute, lasts = rng.randrange(6, 21), rng.randrange(0, 60, 5), rng.randrange(10, 60, 5)
    total = minute + lasts
    steps = [f"{minute}+{lasts}={total}"]
    if total >= HOUR_MINUTES:
        steps += [f"{total}-60={total - 60}", f"{hour}+1={hour + 1}"]
    ends_at = f"{hour + total // 60}:{total % 60:02d}"
    ask = rng.choice(
        (
            "A film starts at {t} and lasts {n} minutes. When does it end?",
            "The train leaves at {t} and takes {n} minutes. When does it arrive?",
            "It is {t} now. What time will it be in {n} minutes?",
            "What time is it {n} minutes after {t}?",
            "My lesson begins at {t} and runs for {n} minutes. What time is it over?",
        )
    )
    return Draft(
        problem=f"{hour}:{minute}+{lasts}",
        prompt=ask.format(t=f"{hour}:{minute:02d}", n=lasts),
        answer=ends_at,
        difficulty=0.5 + 0.3 * (total >= HOUR_MINUTES),
        solution="\n".join(steps),
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
