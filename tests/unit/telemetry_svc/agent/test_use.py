"""What the agent reads of real processes on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from telemetry_svc.agent.use import SAME_PROCESS_S, Processes


@pytest.fixture
def child() -> Iterator[psutil.Process]:
    """Run a process that waits until its input closes."""
    code, pipe = "print('ready', flush=True); input()", subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        yield psutil.Process(process.pid)
        process.stdin.write(b"\n")


def test_reads_another_process(child: psutil.Process) -> None:
    """Memory, threads and the machine's ratios are plausible."""
    use = Processes().use(child.pid, child.create_time())

    assert use is not None
    assert 1_000_000 < use.rss_bytes < 2**40
    assert use.threads >= 1
    assert use.cpu_ratio >= 0
    assert 0 < use.host_memory_ratio <= 1
    assert 0 <= use.host_cpu_ratio <= 1


def test_a_process_that_is_not_there_uses_nothing_known() -> None:
    """An id that no process bears is no error."""
    assert Processes().use(2**22 + 1, 0.0) is None


def test_the_agent_is_not_its_model(child: psutil.Process) -> None:
    """In containers both may be process 1: the agent does not report itself."""
    me = psutil.Process()
    assert me.pid == os.getpid()

    assert Processes().use(me.pid, me.create_time()) is None
    assert Processes().use(child.pid, child.create_time()) is not None


def test_an_older_process_of_the_same_number_is_another(child: psutil.Process) -> None:
    """A number that was given to another process long before is not the model's."""
    late_s = child.create_time() + SAME_PROCESS_S + 5

    assert Processes().use(child.pid, late_s) is None
