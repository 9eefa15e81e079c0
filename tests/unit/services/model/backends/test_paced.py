"""A paced backend takes its time, and not more."""

import numpy as np
import pytest

from services.model.backends.fake import FakeBackend
from services.model.backends.paced import Paced


class Clock:
    """Time that passes by pauses, and by *work_s* each time that it is read."""

    def __init__(self, work_s: float) -> None:
        self.now_s, self.work_s = 0.0, work_s

    def __call__(self) -> float:
        """Seconds."""
        self.now_s += self.work_s
        return self.now_s

    def pause(self, seconds: float) -> None:
        """Pass."""
        self.now_s += seconds


@pytest.mark.parametrize(("work_s", "prefill_s", "decode_s"), [(0.0, 0.08, 0.16), (0.5, 0.5, 0.5)])
def test_calls_take_their_pace_or_as_long_as_the_work(
    work_s: float, prefill_s: float, decode_s: float
) -> None:
    """Eight tokens of a prompt, then a step of three rows; work that is slower is not held up."""
    clock = Clock(work_s)
    paced = Paced(
        FakeBackend(slots=4, context_tokens=64, vocabulary=50),
        step_s=0.1,
        step_s_per_running=0.02,
        prefill_s_per_token=0.01,
        clock=clock,
        pause=clock.pause,
    )
    began_s = clock.now_s + work_s
    paced.prefill(0, 0, np.arange(8), 1)
    assert clock.now_s - began_s == pytest.approx(prefill_s)

    began_s = clock.now_s + work_s
    paced.decode(np.arange(3), np.array([8, 0, 0]))
    assert clock.now_s - began_s == pytest.approx(decode_s)
