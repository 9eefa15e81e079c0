"""Structured logs: events with fields, on stderr, coloured in a terminal and JSON elsewhere."""

import logging
import os
import sys
from typing import TextIO, cast

import structlog


def configure(process: str, level: str = "info") -> None:
    """Set up structlog for this process, whose name every event carries."""
    quiet_grpc()
    terminal = sys.stderr.isatty()
    # Tracebacks without local variables: those hold what callers wrote.
    plain = structlog.dev.RichTracebackFormatter(show_locals=False)
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)


def quiet_grpc() -> None:
    """Keep gRPC's core from writing lines of its own among ours, unless GRPC_VERBOSITY says more.

    It tells of every connection that a stopping server closes. Before the first channel or server.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


class _Stderr:
    """Standard error as it is when an event comes: whoever replaced it may have closed theirs."""

    def write(self, text: str) -> int:
        """Write *text*."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush."""
        sys.stderr.flush()
