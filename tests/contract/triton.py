"""The real tritonclient, in a process of its own.

Its messages have the same full names as ours, and a process can hold a name once.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).with_name("triton_client.py")


class Triton:
    """Talks to the process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    async def ask(self, what: str, at: str, **fields: object) -> Any:
        """Have *what* done against the server *at*; return what came of it."""
        return await asyncio.to_thread(self._ask, json.dumps({"what": what, "at": at, **fields}))

    async def go_on(self) -> Any:
        """Have a command that waits for this go on; return what came of it."""
        return await asyncio.to_thread(self._ask, "{}")

    def _ask(self, line: str) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "tritonclient's process ended; its traceback is above"
        return json.loads(answer)


@contextmanager
def started() -> Iterator[Triton]:
    """Start the process, and end it."""
    command = [sys.executable, str(CLIENT)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Triton(process)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(10)
