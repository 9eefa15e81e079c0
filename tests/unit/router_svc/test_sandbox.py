"""What code from a model can and cannot do."""

import time

import pytest

from router_svc.sandbox import doctests

TEST = ">>> f()\n1\n"


def test_passed_tests_are_counted() -> None:
    """Of all that there are."""
    code = "def f():\n    return 1\n"
    assert doctests(code, TEST + ">>> f() + 1\n3\n") == (1, 2)


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "x = ' ' * 10**10",
        "import os; os._exit(0)",
        "raise SystemExit",
        "def f(: pass",
        "print('x' * 10**6)\nraise ValueError",
        "import socket; socket.socket()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.fork()",
        "open('leak', 'w', buffering=1).write('x\\n')",
    ],
)
def test_code_that_misbehaves_passes_nothing_and_ends(code: str) -> None:
    """Within the wall time, and a process start."""
    start_s = time.monotonic()
    passed, total = doctests(f"{code}\ndef f(): return 1\n", TEST, wall_s=2.0)
    assert (passed, total) == (0, 1)
    assert time.monotonic() - start_s < 30.0


def test_secrets_of_the_environment_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child starts with an empty environment."""
    monkeypatch.setenv("ZETA_SECRET", "s3cret")
    code = "import os\ndef f():\n    return int('ZETA_SECRET' not in os.environ)\n"
    assert doctests(code, TEST) == (1, 1)


def test_a_result_cannot_be_printed() -> None:
    """Only who knows the token reports, and what the code prints is not read."""
    assert doctests("print('x 1 1')\ndef f(): return 0\n", TEST) == (0, 1)
