"""Figures of rows."""

import pytest
from zeta.model.v1.model_control_service_pb2 import LatencySketch

from zeta_client.cli.fleet_rows import quantile_s


def test_quantiles_add_sketches_up() -> None:
    """The quantile of two sketches is that of all their counts, a bucket's width from exact."""
    early, late = (
        LatencySketch(buckets=[bucket], counts=[count]) for bucket, count in ((10, 98), (90, 2))
    )

    assert quantile_s([early, late], 0.5) == pytest.approx(1.1**10 * 1e-6)
    assert quantile_s([early, late], 0.99) == pytest.approx(1.1**90 * 1e-6)
    assert quantile_s([], 0.5) is None
