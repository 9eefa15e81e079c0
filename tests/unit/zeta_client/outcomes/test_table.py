"""Tables of outcomes are read as promised, and refused with a sentence that helps."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeta_client.outcomes.table import TableError, read, usd_per_token

pyarrow = pytest.importorskip("pyarrow", reason="the extra zeta[eval] is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS: Mapping[str, Sequence[Any]] = {
    "prompt": ["One?", "Two?", "Three?"],
    "task": ["never", "to be", "read"],
    "score__small-7b": [1.0, 0.0, None],
    "score__big-70b": [1.0, 1.0, 0.5],
}


def written(folder: Path, **columns: Any) -> Path:
    """Write ROWS with *columns* added or, where None, taken away."""
    kept = {k: v for k, v in {**ROWS, **columns}.items() if v is not None}
    path = folder / "table.parquet"
    parquet.write_table(pyarrow.table(kept), path)
    return path


def test_prompts_and_scores_are_read(tmp_path: Path) -> None:
    """Every model with scores is there, a missing score is NaN, and the gap is told."""
    table = read(written(tmp_path))

    assert table.prompts == ("One?", "Two?", "Three?")
    assert table.models == ("small-7b", "big-70b")
    np.testing.assert_array_equal(table.scores, [[1.0, 1.0], [0.0, 1.0], [np.nan, 0.5]])
    assert any("small-7b (67%)" in note for note in table.notes)


def test_models_and_prompts_can_be_named(tmp_path: Path) -> None:
    """--models chooses and orders, --prompt-column names any column of text."""
    table = read(written(tmp_path), models=["big-70b", "small-7b"], prompt_column="task")

    assert table.models == ("big-70b", "small-7b")
    assert table.prompts == ("never", "to be", "read")


def test_a_usual_name_of_prompts_is_found(tmp_path: Path) -> None:
    """Without a column named prompt, the only one of the usual names is taken."""
    file = written(tmp_path, prompt=None, question=["A?", "B?", "C?"])

    assert read(file).prompts == ("A?", "B?", "C?")


def test_scores_may_be_whole_numbers_or_truth_values(tmp_path: Path) -> None:
    """Verdicts count as 0 and 1."""
    file = written(
        tmp_path, **{"score__small-7b": [True, False, True], "score__big-70b": [1, 0, 1]}
    )

    np.testing.assert_array_equal(read(file).scores, [[1, 1], [0, 0], [1, 1]])


def test_rows_without_prompt_or_score_are_left_out_and_told(tmp_path: Path) -> None:
    """What cannot be judged does not count."""
    file = written(
        tmp_path, prompt=["One?", None, "Three?"], **{"score__big-70b": [1.0, 1.0, None]}
    )
    table = read(file)

    assert table.prompts == ("One?",)
    assert "2 rows without prompt or score are left out" in table.notes


def test_a_limit_samples_by_the_seed(tmp_path: Path) -> None:
    """The same seed takes the same rows, another one others; rows keep their order."""
    prompts = [f"{i:03}?" for i in range(100)]
    scores = {"score__small-7b": [0.0] * 100, "score__big-70b": [1.0] * 100}
    file = written(tmp_path, prompt=prompts, task=prompts, **scores)
    taken = [read(file, limit=30, seed=seed).prompts for seed in (1, 1, 2)]

    assert len(taken[0]) == 30
    assert taken[0] == taken[1] != taken[2]
    assert list(taken[0]) == sorted(taken[0])


def test_given_costs_count(tmp_path: Path) -> None:
    """A missing cost is the model's mean."""
    file = written(
        tmp_path, **{"cost__small-7b": [1.0, None, 3.0], "cost__big-70b": [10.0, 10.0, 20.0]}
    )

    np.testing.assert_allclose(read(file).costs, [[1, 10], [2, 10], [3, 20]])


def test_lengths_are_priced_by_size(tmp_path: Path) -> None:
    """Without costs an answer costs its tokens times a price in proportion to the size."""
    file = written(
        tmp_path,
        **{"out_tokens__small-7b": [10, 20, 30], "out_tokens__big-70b": [10, 10, 10]},
    )
    costs = read(file).costs

    np.testing.assert_allclose(costs[:, 0] / costs[:, 1], [0.1, 0.2, 0.3])


def test_lengths_that_nobody_measured_do_not_count(tmp_path: Path) -> None:
    """Columns without a figure of some model are as good as none."""
    file = written(
        tmp_path,
        **{"out_tokens__small-7b": [None, None, None], "out_tokens__big-70b": [10, 10, 10]},
    )
    table = read(file)

    np.testing.assert_allclose(table.costs[:, 1] / table.costs[:, 0], 10.0)
    assert any("no lengths" in note for note in table.notes)


def test_without_lengths_the_size_alone_prices(tmp_path: Path) -> None:
    """Every answer of a model costs the same, and a note says so."""
    table = read(written(tmp_path))

    np.testing.assert_allclose(table.costs[:, 1] / table.costs[:, 0], 10.0)
    assert any("priced by its model's size alone" in note for note in table.notes)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("llama-3.1-8b-instruct", 8.0),
        ("Meta-Llama-3.1-70B-Instruct", 70.0),
        ("llama3-chatqa-1.5-8b", 8.0),
        ("Qwen2.5-0.5B", 0.5),
        ("weak_mixtral-8x7b", 14.0),
        ("llama-3.3-nemotron-super-49b-v1", 49.0),
        ("general-4b", 4.0),
        ("gpt-4o-mini-2024-07-18", None),
        ("Phi-3-mini-4k-instruct", None),
    ],
)
def test_a_size_is_read_from_a_name(model: str, billions: float | None) -> None:
    """The number before a lone b counts; two experts of a mixture are active."""
    price = usd_per_token(model)

    assert (price is None) == (billions is None)
    if price and billions:
        assert price == pytest.approx(billions * 1e-8)


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"score__small-7b": None, "score__big-70b": None}, {}, "score__MODEL"),
        ({}, {"models": ["huge", "big-70b"]}, "no scores of huge; there are small-7b, big-70b"),
        ({}, {"models": ["big-70b"]}, "only one model"),
        ({}, {"prompt_column": "nothing"}, "columns of text: prompt, task"),
        ({"prompt": None}, {}, "columns of text: task: name the prompts'"),
        ({"prompt": None, "task": None}, {}, "columns of text: none"),
        ({"prompt": [1, 2, 3]}, {}, "not text"),
        ({"score__big-70b": [1.0, 1.5, 0.0]}, {}, "row 1: the score 1.5 is not in [0, 1]"),
        ({"score__big-70b": [1.0, -1.0, 0.0]}, {}, "row 1: the score -1 is not in [0, 1]"),
        ({"score__big-70b": ["good", "bad", "bad"]}, {}, "holds no numbers"),
        ({"score__big-70b": [None, None, None]}, {}, "no score at all of big-70b"),
    ],
)
def test_a_wrong_table_is_refused_with_help(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    """Each mistake is named with what was found instead."""
    with pytest.raises(TableError) as refused:
        read(written(tmp_path, **columns), **options)

    assert said in str(refused.value)


def test_no_file_and_no_parquet_are_told_apart(tmp_path: Path) -> None:
    """A missing file is missing; one of text is not parquet."""
    with pytest.raises(TableError, match="there is no such file"):
        read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("prompt,score\n" * 10)
    with pytest.raises(TableError, match="not a parquet file"):
        read(tmp_path / "text.parquet")


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    """Columns without rows are nothing to judge by."""
    empty = {
        name: pyarrow.array([], "string" if name in {"prompt", "task"} else "float64")
        for name in ROWS
    }
    with pytest.raises(TableError, match="no rows"):
        read(written(tmp_path, **empty))


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow the message says what to install."""
    file = written(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(TableError, match="pip install pyarrow"):
        read(file)
