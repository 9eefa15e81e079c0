"""The supervisor over tiny real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from zeta_client.fleet.processes import Process
from zeta_client.fleet.supervise import Backoff, StartFailedError, Supervisor

SERVES = """
import pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("hello", flush=True)
pathlib.Path(sys.argv[1]).touch()
"""
UNTIL_TOLD = SERVES + "signal.sigwait([signal.SIGTERM])\n"
FOR_EVER = SERVES + "signal.sigwait([signal.SIGUSR1])\n"
QUICK = Backoff(first_s=0.001, most_s=0.01)


def python(folder: Path, name: str, code: str, *, stopped_in: int = 1) -> Process:
    """Describe a process that runs *code*, and that serves once a file of its name is there."""
    return Process(
        name=name,
        command=(sys.executable, "-c", code, str(folder / name)),
        environment={},
        stopped_in=stopped_in,
        address=str(folder / name),
    )


def supervisor(logs: Path, *processes: Process, grace_s: float = 20.0) -> Supervisor:
    """Supervise *processes*, whose addresses are files that exist once they serve."""
    return Supervisor(
        processes,
        logs=logs,
        until_serving=lambda address: until(Path(address).exists),
        grace_s=grace_s,
        backoff=QUICK,
        rng=Random(7),  # noqa: S311 - jitter
    )


async def until(condition: Callable[[], object]) -> None:
    """Poll *condition* until it holds, for 20 s at most."""
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def alive(pid: int | None) -> bool:
    """Say whether a process of that id exists."""
    assert pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_starts_what_ended_again(tmp_path: Path) -> None:
    """A process that is killed comes back under a new id."""
    async with supervisor(tmp_path, python(tmp_path, "a", UNTIL_TOLD)) as fleet:
        await fleet.ready(timeout_s=20)
        first = fleet.pid("a")
        assert first

        os.kill(first, signal.SIGKILL)
        await until(lambda: fleet.pid("a") not in (first, None))

        assert not alive(first)


async def test_leaves_nothing_running(tmp_path: Path) -> None:
    """After the context every process is gone, even where the body raised."""
    pids = []

    async def fails_inside() -> None:
        processes = [python(tmp_path, name, UNTIL_TOLD) for name in "ab"]
        async with supervisor(tmp_path, *processes) as fleet:
            await fleet.ready(timeout_s=20)
            pids.extend([fleet.pid("a"), fleet.pid("b")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fails_inside()

    assert [alive(pid) for pid in pids] == [False, False]


async def test_kills_after_grace(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed once its grace is over."""
    async with supervisor(tmp_path, python(tmp_path, "a", FOR_EVER), grace_s=0.05) as fleet:
        await fleet.ready(timeout_s=20)
        pid = fleet.pid("a")

    assert not alive(pid)


async def test_stops_the_router_first(tmp_path: Path) -> None:
    """What sends work has ended before what does it is told to."""
    ends = tmp_path / "ends"
    code = f"{UNTIL_TOLD}open({str(ends)!r}, 'a').write(sys.argv[1][-1])"
    processes = [python(tmp_path, "m", code), python(tmp_path, "r", code, stopped_in=0)]
    async with supervisor(tmp_path, *processes) as fleet:
        await fleet.ready(timeout_s=20)

    assert ends.read_text() == "rm"


async def test_wrong_configuration_fails_the_start(tmp_path: Path) -> None:
    """Exit code 2 before readiness ends the start with the process's own words, at once."""
    code = "import sys; print('router.port: not a number'); sys.exit(2)"
    async with supervisor(tmp_path, python(tmp_path, "router", code)) as fleet:
        with pytest.raises(StartFailedError, match=r"router\.port: not a number") as failed:
            await fleet.ready(timeout_s=20)

    assert "router refused its configuration" in str(failed.value)
    assert (tmp_path / "router.log").read_text().count("not a number") == 1


async def test_gives_up_on_what_never_starts(tmp_path: Path) -> None:
    """A process that ends again and again before readiness fails the start."""
    code = "raise SystemExit('out of luck')"
    async with supervisor(tmp_path, python(tmp_path, "a", code)) as fleet:
        with pytest.raises(StartFailedError, match="out of luck"):
            await fleet.ready(timeout_s=20)

    assert (tmp_path / "a.log").read_text().count("out of luck") == QUICK.start_attempts


async def test_wrong_configuration_later_is_tried_again(tmp_path: Path) -> None:
    """Once the fleet was ready, even exit code 2 is a reason to start the process again."""
    runs = tmp_path / "runs"
    code = (
        f"{SERVES}open({str(runs)!r}, 'a').write('.')\n"
        f"if len(open({str(runs)!r}).read()) == 2: sys.exit(2)\n"
        "signal.sigwait([signal.SIGTERM])"
    )
    async with supervisor(tmp_path, python(tmp_path, "a", code)) as fleet:
        await fleet.ready(timeout_s=20)
        await until(lambda: runs.exists() and runs.read_text() == ".")
        os.kill(fleet.pid("a") or 0, signal.SIGKILL)

        await until(lambda: runs.read_text() == "...")


async def test_names_what_is_late(tmp_path: Path) -> None:
    """A server that never serves is named when the time is up."""
    late = python(tmp_path, "slow", "import signal; signal.pause()")
    async with supervisor(tmp_path, late) as fleet:
        with pytest.raises(StartFailedError, match="slow"):
            await fleet.ready(timeout_s=0.01)


async def test_keeps_the_log_of_the_start_before(tmp_path: Path) -> None:
    """Each start has a log of its own, and the one before is kept."""
    for word in ("first", "second"):
        code = UNTIL_TOLD.replace("hello", word)
        (tmp_path / "a").unlink(missing_ok=True)
        async with supervisor(tmp_path, python(tmp_path, "a", code)) as fleet:
            await fleet.ready(timeout_s=20)

    assert (tmp_path / "a.log").read_text() == "second\n"
    assert (tmp_path / "a.log.1").read_text() == "first\n"


def test_backoff_doubles_up_to_its_limit() -> None:
    """Pauses lie between half of and the whole of a doubling, bounded time."""
    backoff, rng = Backoff(first_s=1.0, most_s=5.0), Random(1)  # noqa: S311 - jitter

    for failures, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (400, 5.0)):
        assert longest / 2 <= backoff.delay_s(failures, rng) <= longest
