"""Structured logs: events with fields, on stderr, coloured in a terminal and JSON elsewhere."""

import logging
import sys
from typing import TextIO, cast

import structlog


def configure(process: str, level: str = "info") -> None:
    """Set up structlog for this process, whose name every event carries."""
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


class _Stderr:
    """Standard error as it is when an event comes: whoever replaced it may have closed theirs."""

    def write(self, text: str) -> int:
        """Write *text*."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush."""
        sys.stderr.flush()
