"""What a process uses of the machine that it runs on, through psutil."""

import os
from dataclasses import dataclass

import psutil

SAME_PROCESS_S = 60.0
"""A process says that it started at most so long after the system created it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a process uses, and how busy its machine is."""

    cpu_ratio: float
    rss_bytes: int
    host_memory_ratio: float
    host_cpu_ratio: float
    threads: int


class Processes:
    """Reads one process of this machine at a time."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None

    def use(self, pid: int, started_s: float) -> Use | None:
        """Read *pid*, which started at the Unix time *started_s*.

        Containers number their processes apart: what bears the number here may be another
        process, even the agent itself. Then there is nothing to read.
        """
        try:
            process = self._find(pid, started_s)
            return _use(process) if process else None
        except psutil.Error:
            self._process = None
            return None

    def _find(self, pid: int, started_s: float) -> psutil.Process | None:
        """Keep the process from one reading to the next: its CPU is what it used between."""
        if self._process is None or self._process.pid != pid or not self._process.is_running():
            process = psutil.Process(pid)
            same = -SAME_PROCESS_S < started_s - process.create_time() < SAME_PROCESS_S
            self._process = process if same and pid != os.getpid() else None
        return self._process


def _use(process: psutil.Process) -> Use:
    with process.oneshot():
        return Use(
            cpu_ratio=process.cpu_percent() / 100,
            rss_bytes=process.memory_info().rss,
            host_memory_ratio=psutil.virtual_memory().percent / 100,
            host_cpu_ratio=psutil.cpu_percent() / 100,
            threads=process.num_threads(),
        )
