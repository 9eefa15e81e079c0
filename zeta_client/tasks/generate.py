"""Draw tasks of a split: the mix of families and the rule that keeps splits apart."""

from collections.abc import Iterator, Mapping
from itertools import islice
from random import Random
from types import MappingProxyType
from typing import Final

from zeta_client.tasks import coding, editing, general, reasoning, stories
from zeta_client.tasks.task import Family, Split, Task, split_of

FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "python_string": Family(kind="code", weight=8, draw=coding.string_expression),
        "python_list": Family(kind="code", weight=8, draw=coding.list_expression),
        "python_dict": Family(kind="code", weight=5, draw=coding.dict_expression),
        "function": Family(kind="code", weight=7, draw=coding.function_body),
        "string_edit": Family(kind="code", weight=7, draw=editing.string_edit),
        "arithmetic": Family(kind="reasoning", weight=14, draw=reasoning.arithmetic),
        "word_problem": Family(kind="reasoning", weight=11, draw=stories.word_problem),
        "unit": Family(kind="reasoning", weight=5, draw=reasoning.unit),
        "date": Family(kind="reasoning", weight=5, draw=reasoning.date),
        "fact": Family(kind="general", weight=15, draw=general.fact),
        "category": Family(kind="general", weight=8, draw=general.category),
        "compare": Family(kind="general", weight=7, draw=general.compare),
    }
)
DEFAULT_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {name: family.weight for name, family in FAMILIES.items()}
)


def generate(
    count: int,
    *,
    split: Split,
    seed: int,
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
) -> list[Task]:
    """Return `count` tasks of `split`, the same for the same arguments.

    No problem is in two splits: a problem's hash decides where it belongs, and every wording of
    it follows. Facts are the exception, as the set is closed and a model can only know what it
    has met: there the hash covers fact and wording together, so held-out wordings are unseen.
    """
    return list(islice(stream(split=split, seed=seed, weights=weights), count))


def stream(
    *, split: Split, seed: int, weights: Mapping[str, float] = DEFAULT_WEIGHTS
) -> Iterator[Task]:
    """Yield tasks of `split` for ever, families drawn by `weights`."""
    rng = Random(f"{split}:{seed}")  # noqa: S311 - reproducible on purpose, nothing secret
    names, shares = list(weights), list(weights.values())
    while True:
        yield _draw(rng.choices(names, shares)[0], split, rng)


def _draw(name: str, split: Split, rng: Random) -> Task:
    family = FAMILIES[name]
    draft = family.draw(rng)
    while split_of(f"{name}:{draft.problem}") != split:
        draft = family.draw(rng)
    return Task(
        prompt=draft.prompt,
        answer=draft.answer,
        family=name,
        difficulty=draft.difficulty,
        kind=family.kind,
        solution=draft.solution,
    )
