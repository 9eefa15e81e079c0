"""Who is left out is told why, in words that mean something."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.filters import rejections
from tests.unit.router_svc.fixtures import ask, loaded, replicas


@pytest.mark.parametrize(
    ("age_s", "told"),
    [(1.25, "does not serve; last report 1.2 s old"), (np.inf, "does not serve; no report of it")],
)
def test_who_does_not_serve_is_told_with_the_age_of_its_report(age_s: float, told: str) -> None:
    """Also where there is none, as of a process that was just killed."""
    fleet = loaded(replace(replicas({"m": 1}), healthy=np.array([False])), age_s=np.array([age_s]))

    assert [rejected.detail for rejected in rejections(ask(), 5.0, fleet)] == [told]
