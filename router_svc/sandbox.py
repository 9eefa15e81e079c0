"""Run Python that a model wrote, in a process of its own, with limits.

What is limited: CPU and wall time, memory, size of files written (none), open files, and, unless
the router runs as root, new processes; the process starts without our environment, files or
site packages, in an empty folder. Where the kernel grants unprivileged user namespaces it has no
network; elsewhere only an audit hook stands before sockets, which a determined program gets
around. Nothing keeps it from reading files that the router's user may read. Therefore: a check on
models that one runs oneself, no place for code from strangers.
"""

import json
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

WALL_S: Final = 5.0
_CHILD: Final = Path(__file__).with_name("sandboxed.py")
_LONGEST: Final = 200_000
"""Characters of code and doctests together."""


def doctests(code: str, tests: str, *, wall_s: float = WALL_S) -> tuple[int, int]:
    """Run *code*, then the doctests of *tests* in its names; return how many passed, of how many.

    Code that fails, hangs or takes too much passes none. (0, 0) where there are no tests.
    """
    if len(code) + len(tests) > _LONGEST:
        return 0, 1
    token = secrets.token_hex(16)
    work = json.dumps({"code": code, "tests": tests, "token": token, "wall_s": wall_s})
    with tempfile.TemporaryDirectory(prefix="zeta-sandbox-") as folder:
        try:
            done = subprocess.run(  # noqa: S603 - our own file, by our own interpreter
                [sys.executable, "-I", "-S", "-B", str(_CHILD)],
                input=work.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={},
                timeout=wall_s,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 0, 1
    return _result(done.stdout, token)


def _result(output: bytes, token: str) -> tuple[int, int]:
    for line in output[-10_000:].decode(errors="replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == token:  # noqa: PLR2004 - token, passed, total
            return int(words[1]), int(words[2])
    return 0, 1
