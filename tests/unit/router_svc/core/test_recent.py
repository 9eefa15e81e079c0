"""Peaks come at once and fade as an exponential."""

from math import exp

import numpy as np
import pytest

from router_svc.core.recent import Recent


def test_a_peak_counts_at_once_and_fades() -> None:
    """A slow answer is believed whole; ten seconds later a third of it is left."""
    recent = Recent(2)
    recent.took(0, 0.1, 0.0)
    recent.took(0, 5.0, 1.0)

    assert recent.peaks.at(1.0).tolist() == [5.0, 0.0]
    assert recent.peaks.at(11.0)[0] == pytest.approx(5.0 / np.e)


def test_faster_answers_are_believed_little_by_little() -> None:
    """A faster answer moves the peak by as much as time has passed: the closed form."""
    recent = Recent(1)
    recent.took(0, 5.0, 0.0)
    recent.took(0, 1.0, 2.0)

    kept = exp(-0.2)
    assert recent.peaks.at(2.0)[0] == pytest.approx(kept * 5.0 + (1.0 - kept) * 1.0)


def test_turns_are_counted() -> None:
    """The last turn of each replica is the number of the request that it got."""
    recent = Recent(3)
    for i in (1, 0, 1):
        recent.began(i)

    assert recent.last_turn.tolist() == [2.0, 3.0, 0.0]
