"""Two routers on one fleet."""

from pathlib import Path

from tests.bench.routers import REPLICAS, compare


async def test_two_routers_do_not_herd(tmp_path: Path) -> None:
    """They know nothing of each other but the reports, and spread the work about as one does.

    Routers that herd send what comes between two reports to one replica: a spread near 1.
    """
    found = await compare(tmp_path, interval_s=0.5, seconds=6.0, rate=14.0, seed=3)
    one, two = found["one router"], found["two routers"]

    assert one.requests == two.requests > 50
    assert len(two.shares) == REPLICAS
    assert all(0.1 < share < 0.4 for share in two.shares.values()), two.shares
    assert two.spread < one.spread + 0.2
