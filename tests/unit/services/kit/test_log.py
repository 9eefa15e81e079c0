"""Where logs go."""

import contextlib
import io
import json
from collections.abc import Iterator

import pytest
import structlog

from services.kit import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave no configuration behind."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_events_outlive_the_stderr_they_were_configured_under() -> None:
    """A logger that was used keeps its file; that file may be closed by whoever opened it."""
    logger, first, second = structlog.get_logger(), io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(first):
        log.configure("worker")
        logger.info("begun")
        assert json.loads(first.getvalue())["event"] == "begun"
    first.close()
    with contextlib.redirect_stderr(second):
        logger.info("ended", tokens=3)

    event = json.loads(second.getvalue())
    assert (event["event"], event["process"], event["tokens"]) == ("ended", "worker", 3)
