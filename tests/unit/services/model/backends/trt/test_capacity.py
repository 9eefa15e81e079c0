"""What runs at once."""

import pytest

from services.model.backends.trt.capacity import MOST_WANTED, pieces


@pytest.mark.parametrize("count", [1, 5, 16, 17, 64, 65, 200, 512])
@pytest.mark.parametrize("most", [16, 128, 512])
def test_pieces_cover_a_prompt_in_order(count: int, most: int) -> None:
    """None is too long or wants too much; together they want exactly the last tokens."""
    for wanted in {0, 1, min(70, count), count}:
        cut = list(pieces(count, wanted, most))
        assert [start for start, _, _ in cut] == [0, *(stop for _, stop, _ in cut[:-1])]
        assert cut[-1][1] == count
        assert all(0 < stop - start <= most for start, stop, _ in cut)
        assert all(0 <= rows <= min(MOST_WANTED, stop - start) for start, stop, rows in cut)
        positions = [p for _, stop, rows in cut for p in range(stop - rows, stop)]
        assert positions == list(range(count - wanted, count))
