"""A short version of `python -m tests.bench.chaos`: everything but one router breaks once."""

from pathlib import Path

import pytest

from tests.bench.chaos.mischief import ACTS
from tests.bench.chaos.run import Plan, run


@pytest.mark.chaos
async def test_nothing_accepted_is_lost_while_everything_breaks(tmp_path: Path) -> None:
    """Under a steady load: no gap, no repeat, greedy answers as ever, errors as documented.

    At the end all serve again, nothing is left running, and the answers are what they were. Whether
    an answer is hit in its middle is chance here; `test_failures` hits a hundred for certain.
    """
    for folder in ("fleet", "router"):
        (tmp_path / folder).mkdir()
    plan = Plan(seconds=15.0, per_s=4.0, every_s=1.5, seed=5, acts=ACTS)
    found = await run(tmp_path, plan)

    assert list(found.faults()) == []
    assert [str(stream.error) for stream in found.broken()] == []
    assert found.lost() == 0, found.accepted
    assert found.acts.keys() == set(ACTS)
    assert found.ends["finished"] > len(found.streams) / 2, found.ends
