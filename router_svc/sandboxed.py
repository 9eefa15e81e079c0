"""The inside of `sandbox`: started as a script, it limits itself, then runs what it is given.

Imports the standard library alone, since it runs without site packages.
"""

import contextlib
import ctypes
import doctest
import io
import json
import os
import resource
import sys
import types

_MEMORY_BYTES = 512 * 1024 * 1024
_OUTPUT_CHARS = 100_000
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")


def _limit(wall_s: float) -> None:
    """Give up what the work does not need."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(_NEW_USER | _NEW_NET)  # where it is refused, the audit hook has to do
    seconds = max(int(wall_s), 1)
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))

    def refuse(event: str, _arguments: object) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(event)

    sys.addaudithook(refuse)


class _Bounded(io.StringIO):
    """Keeps the first of what is printed: a loop that prints must not fill the memory."""

    def write(self, text: str) -> int:
        if self.tell() < _OUTPUT_CHARS:
            super().write(text[:_OUTPUT_CHARS])
        return len(text)


def _run(code: str, tests: str) -> tuple[int, int]:
    parsed = doctest.DocTestParser().get_doctest(tests, {}, "tests", None, 0)
    module = types.ModuleType("answer")
    with contextlib.redirect_stdout(_Bounded()), contextlib.redirect_stderr(_Bounded()):
        try:
            exec(compile(code, "answer", "exec"), module.__dict__)  # noqa: S102 - its purpose
        except BaseException:  # noqa: BLE001 - whatever a model wrote
            return 0, max(len(parsed.examples), 1)
        parsed.globs = module.__dict__
        runner = doctest.DocTestRunner(verbose=False)
        found = runner.run(parsed, out=lambda _text: None)
    return found.attempted - found.failed, found.attempted


def _main() -> None:
    work = json.loads(sys.stdin.read())
    told = os.dup(1)
    _limit(work["wall_s"])
    passed, total = _run(work["code"], work["tests"])
    os.write(told, f"\n{work['token']} {passed} {total}\n".encode())


if __name__ == "__main__":
    _main()
