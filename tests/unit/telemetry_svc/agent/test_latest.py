"""A slow reading in a thread of its own, with a clock and pauses of the test's."""

import threading
from dataclasses import dataclass, field

import structlog

from telemetry_svc.agent.latest import Latest


@dataclass
class Steps:
    """A reading that the test lets happen, one at a time; it can fail or hang."""

    now_s: float = 0.0
    fails: bool = False
    readings: int = 0
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    done: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def read(self) -> int:
        """Wait to be let, then count."""
        self.go.acquire()
        self.readings += 1
        if self.fails:
            raise RuntimeError("the driver is gone")
        return self.readings

    def pause(self, for_s: float) -> None:
        """Say that a reading is over."""
        assert for_s == 1.0
        self.done.release()

    def step(self) -> None:
        """Let one reading happen, and wait for its end."""
        self.go.release()
        assert self.done.acquire(timeout=10)


def latest(steps: Steps) -> Latest[int]:
    """Start reading."""
    return Latest(steps.read, every_s=1.0, clock=lambda: steps.now_s, pause=steps.pause)


def test_gives_the_last_reading_without_waiting_for_the_next() -> None:
    """Before the first there is none; while one hangs, the one before is there."""
    steps = Steps()
    found = latest(steps)

    assert found.value(max_age_s=5.0) is None
    steps.step()
    steps.step()
    assert found.value(max_age_s=5.0) == 2


def test_a_reading_grows_old_while_the_next_one_hangs() -> None:
    """What a driver said long ago is not told as if it were so now."""
    steps = Steps()
    found = latest(steps)
    steps.step()

    steps.now_s = 5.0
    assert found.value(max_age_s=5.0) == 1
    steps.now_s = 5.1
    assert found.value(max_age_s=5.0) is None


def test_a_reading_that_fails_is_followed_by_others() -> None:
    """The failure is logged, and the thread goes on."""
    steps = Steps(fails=True)
    with structlog.testing.capture_logs() as logs:
        found = latest(steps)
        steps.step()
        steps.fails = False
        steps.step()

    assert found.value(max_age_s=5.0) == 2
    assert [entry["log_level"] for entry in logs] == ["error"]
