"""The generator: disjoint splits, right answers, one checker."""

import re
from itertools import product
from typing import get_args

import pytest

from zeta_client.tasks import DEFAULT_WEIGHTS, FAMILIES, Split, Task, generate, is_correct, split_of
from zeta_client.tasks.general import FACTS
from zeta_client.tasks.lexicon import CAPITALS, OPPOSITES

SPLITS: tuple[Split, ...] = get_args(Split)
SUM = re.compile(r"\d+(?: [-+*] \(*\d+\)*)+|\(+\d+(?: [-+*] \(*\d+\)*)+")


def only(family: str, count: int, split: Split = "train") -> list[Task]:
    return generate(count, split=split, seed=5, weights={family: 1.0})


def task(answer: str) -> Task:
    return Task(prompt="?", answer=answer, family="fact", difficulty=0.1, kind="general")


def test_the_same_arguments_give_the_same_tasks() -> None:
    assert generate(200, split="train", seed=1) == generate(200, split="train", seed=1)


def test_another_seed_gives_other_tasks() -> None:
    assert generate(200, split="train", seed=1) != generate(200, split="train", seed=2)


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    assert generate(200, split="demo", seed=1)[:50] == generate(50, split="demo", seed=1)


def test_no_prompt_is_in_two_splits() -> None:
    prompts = [{t.prompt for t in generate(4000, split=split, seed=3)} for split in SPLITS]
    for left, right in ((0, 1), (0, 2), (1, 2)):
        assert not prompts[left] & prompts[right]


def test_a_problem_stays_in_its_split_whatever_the_wording() -> None:
    sums = [
        {found[0] for t in only("arithmetic", 2000, split) if (found := SUM.search(t.prompt))}
        for split in SPLITS
    ]
    for left, right in ((0, 1), (0, 2), (1, 2)):
        assert sums[left]
        assert not sums[left] & sums[right]


def test_word_problems_with_the_same_sums_share_a_split() -> None:
    solutions = [{t.solution for t in only("word_problem", 2000, split)} for split in SPLITS]
    shared = solutions[0] & (solutions[1] | solutions[2])
    assert not {s for s in shared if s.count("=") > 1 and "*" not in s}


def test_a_problem_belongs_to_one_split_for_ever() -> None:
    assert [split_of(f"arithmetic:{n} + 1") for n in range(8)] == [
        split_of(f"arithmetic:{n} + 1") for n in range(8)
    ]
    assert {split_of(str(n)) for n in range(200)} == set(SPLITS)


def test_the_default_mix_holds_every_family_and_no_kind_prevails() -> None:
    tasks = generate(6000, split="heldout", seed=1)
    assert {t.family for t in tasks} == set(FAMILIES) == set(DEFAULT_WEIGHTS)
    for kind in ("code", "reasoning", "general"):
        assert 0.28 < sum(t.kind == kind for t in tasks) / len(tasks) < 0.4


def test_difficulty_is_a_ratio_and_varies() -> None:
    tasks = generate(2000, split="train", seed=1)
    assert all(0 <= t.difficulty <= 1 for t in tasks)
    assert len({t.difficulty for t in tasks}) > 10


def test_arithmetic_answers_are_what_python_says() -> None:
    for t in only("arithmetic", 500):
        found = SUM.search(t.prompt)
        assert found, t.prompt
        assert eval(found[0]) == int(t.answer), t.prompt  # noqa: S307 - our own expression


@pytest.mark.parametrize("family", ["arithmetic", "word_problem", "unit"])
def test_every_step_of_a_solution_is_right_and_the_last_is_the_answer(family: str) -> None:
    for t in only(family, 500):
        steps = [step.split("=") for step in t.solution.splitlines()]
        assert all(eval(left) == int(right) for left, right in steps)  # noqa: S307 - ditto
        assert steps[-1][1] == t.answer


@pytest.mark.parametrize("family", ["python_string", "python_list"])
def test_python_answers_are_what_python_prints(family: str) -> None:
    for t in only(family, 1000):
        assert str(eval(expression(t.prompt))) == t.answer, t.prompt  # noqa: S307 - ditto


def test_dictionary_answers_are_what_python_prints() -> None:
    checked = 0
    for t in only("python_dict", 600):
        found = re.search(r"(\w+) = (\{.*?\})\nprint\((.*)\)\n", t.prompt)
        if found:
            value = eval(found[3], {found[1]: eval(found[2])})  # noqa: S307 - ditto
            assert str(value) == t.answer, t.prompt
            checked += 1
    assert checked > 50


def test_function_bodies_are_expressions_of_their_parameters() -> None:
    for t in only("function", 500):
        names = set(compile(t.answer, "answer", "eval").co_names) - {"startswith", "count"}
        builtins = {"sum", "len", "min", "max", "abs", "list", "zip"}
        assert all(re.search(rf"\b{name}\b", t.prompt) for name in names - builtins), t


@pytest.mark.parametrize(
    ("mapping", "wording"), [(CAPITALS, "What is the capital of {}?"), (OPPOSITES, "{}")]
)
def test_facts_are_unambiguous(mapping: dict[str, str], wording: str) -> None:
    assert len({wording.format(asked) for asked in mapping}) == len(mapping) >= 25


def test_there_are_about_a_hundred_facts_each_asked_in_several_wordings() -> None:
    assert sum(len(answers) for answers, _ in FACTS) >= 100
    assert all(len(wordings) >= 4 for _, wordings in FACTS)


def test_a_fact_is_answered_alike_in_every_split() -> None:
    capitals = {
        (t.prompt, t.answer)
        for split in SPLITS
        for t in only("fact", 1500, split)
        if "France" in t.prompt
    }
    assert len(capitals) > 3
    assert {answer for _, answer in capitals} == {"Paris"}


@pytest.mark.parametrize("text", ["42", " 42\n", "42.0", "<think>\n40+2=42\n</think>\n42", "+42"])
def test_the_checker_accepts_the_same_number_however_written(text: str) -> None:
    assert is_correct(task("42"), text)


@pytest.mark.parametrize("text", ["", "43", "42 apples", "The answer is 42", "<think>42", "4 2"])
def test_the_checker_rejects_anything_but_the_answer(text: str) -> None:
    assert not is_correct(task("42"), text)


def test_the_checker_ignores_spacing_but_not_case() -> None:
    assert is_correct(task("[1, 2]"), " [1,  2] ")
    assert not is_correct(task("Paris"), "paris")


def test_a_thought_counts_only_in_front() -> None:
    assert not is_correct(task("42"), "41 <think>x</think>42")


def test_every_answer_passes_its_own_check() -> None:
    for t, thought in product(generate(300, split="demo", seed=1), ("", "<think>\nhm\n</think>\n")):
        assert is_correct(t, thought + t.answer)


def expression(prompt: str) -> str:
    """Return the longest part of a prompt that Python can evaluate."""
    inner = re.search(r"print\((.*)\)", prompt)
    text = inner[1] if inner else prompt.rstrip("?")
    spans = [(i, j) for i in range(len(text)) for j in range(len(text), i, -1)]
    for i, j in sorted(spans, key=lambda span: span[0] - span[1]):
        if text[i] in "'[sml0123456789" and _is_expression(text[i:j]):
            return text[i:j]
    raise AssertionError(prompt)


def _is_expression(text: str) -> bool:
    try:
        eval(text)  # noqa: S307 - our own expression
    except (SyntaxError, NameError, TypeError, AttributeError, ValueError, IndexError):
        return False
    return True
