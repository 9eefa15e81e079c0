"""What every command shares: options, output, errors as one sentence, Ctrl-C."""

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from services.kit import config as kit_config
from services.kit.config import FleetConfig
from services.kit.errors import (
    DeadlinePassedError,
    OverloadedError,
    PredictedDeadlineMissError,
    UnavailableError,
    UnknownDecisionError,
    ZetaError,
)
from zeta_client.async_client import AsyncClient

T = TypeVar("T")
P = ParamSpec("P")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Fleet configuration; default: the pocket fleet"),
]
Target = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Router of a running fleet; default: as configured"),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, and nothing else there")]

Reach = Callable[[], AsyncClient]
"""Makes a client; called inside the event loop, to which its channel belongs."""
INTERRUPTED = 130
_PIPE_WIDTH = 160
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PACKAGE = Path(__file__).resolve().parents[1]
_NEXT: Mapping[type[ZetaError], str] = {
    UnavailableError: "start a fleet with `zeta up`, or name a running one with --target HOST:PORT",
    OverloadedError: "try again a little later",
    PredictedDeadlineMissError: "allow more time with --deadline",
    DeadlinePassedError: "allow more time with --deadline",
    UnknownDecisionError: "give the decision_id that `zeta ask --json` printed",
}


def out() -> Console:
    """Return the console of results: stdout as it is now, wide where it is no terminal.

    What it prints is what was written: brackets and colons are no markup.
    """
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def notes() -> Console:
    """Return the console of progress and remarks: stderr as it is now."""
    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def progress(
    *more: ProgressColumn, console: Console | None = None, hidden: bool = False
) -> Progress:
    """Return progress bars, on stderr unless *console* says where; drawn in a terminal only.

    *more* stands for how many are done, and for how long.
    """
    console = console or notes()
    columns = more or (MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(
        *(TextColumn("{task.description}", markup=False), BarColumn(), *columns),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )


def say(line: str) -> None:
    """Write one plain line of stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def emit(value: Mapping[str, Any]) -> None:
    """Write one JSON object on a line of stdout, at once."""
    say(json.dumps(value, ensure_ascii=False))


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with *message* on stderr."""
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(code)


def default_config() -> Path:
    """Return the pocket fleet's file: the checkout's own, else the packaged copy."""
    checkout = _PACKAGE.parent / "config" / "pocket.toml"
    return checkout if checkout.exists() else _PACKAGE.parent / "zeta_config" / "pocket.toml"


def load(file: Path | None) -> FleetConfig:
    """Read a configuration, or end the command with all that is wrong with it."""
    path = file or default_config()
    try:
        return kit_config.load(path)
    except ZetaError as error:
        fail(f"{error}\nmend the file and try again; `zeta config check FILE` checks it alone")


def reach(file: Path | None, target: str | None) -> Reach:
    """Return what makes a client of *target*, else of the router that the configuration names."""
    config = load(file)
    return partial(AsyncClient, address(target, config.router.listen), settings=config.server)


def address(given: str | None, configured: str) -> str:
    """Return where to ask; an option that is given and empty is a mistake, of a script mostly."""
    if given is not None and not given.strip():
        fail(f"the address must be HOST:PORT or unix:PATH, got {given!r}")
    return given or configured


def checked(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what *make* makes of arguments; what it refuses ends the command as a sentence."""
    try:
        return make(*args, **kwargs)
    except ZetaError as error:
        fail(sentence(error))


def ends_on_interrupt(command: Callable[P, T]) -> Callable[P, T]:
    """Make *command* end without a word, with exit code 130, where Ctrl-C interrupts its work."""

    @wraps(command)
    def ended(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return ended


def run(command: Coroutine[None, None, T]) -> T:
    """Run *command* to its end; errors become a sentence and exit code 1, Ctrl-C code 130."""
    try:
        return asyncio.run(_interruptible(command))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise typer.Exit(INTERRUPTED) from None
    except ZetaError as error:
        fail(sentence(error))
    except BrokenPipeError:
        # Whoever read us has seen enough; flushing at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except OSError as error:
        fail(of_system(error))


async def _interruptible(command: Coroutine[None, None, T]) -> T:
    """Turn the first SIGINT or SIGTERM into a cancellation; the second one ends us outright.

    So does the end of our terminal, unless we are to outlive it (`nohup`).
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]

    def hang_up() -> None:
        for fd in terminals:  # whatever is still said would fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        interrupt(signal.SIGHUP)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    return await command


def of_system(error: OSError, file: Path | None = None) -> str:
    """Return what the system refused, on which file (else *file*), and what to do about it."""
    named = f": {name}" if (name := error.filename or file) else ""
    hint = "; make room and try again" if error.errno in _FULL else ""
    return f"{error.strerror or error}{named}{hint}"


def sentence(error: ZetaError) -> str:
    """Return what went wrong and, where there is something, what to do about it."""
    hint = next((text for kind, text in _NEXT.items() if isinstance(error, kind)), "")
    if error.retry_after_s is not None:
        hint = f"try again in {error.retry_after_s:.1f} s"
    return f"{error}; {hint}" if hint else str(error)
