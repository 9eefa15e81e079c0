"""The health probe against real servers in this process."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from services.kit.config import Server
from services.kit.probe import SERVING, health, page
from services.kit.server import serving

SETTINGS = Server(drain_grace_s=0.0)


async def test_tells_serving_from_not_serving() -> None:
    """The answer is the server's own; an unknown service is told apart from one that is down."""
    async with serving("127.0.0.1:0", SETTINGS, {}) as server:
        before = await health(server.address, "", SETTINGS, 5.0)
        await server.set_serving()
        after = await health(server.address, "", SETTINGS, 5.0)
        unknown = await health(server.address, "no.such.Service", SETTINGS, 5.0)

    assert (before, after, unknown) == ("NOT_SERVING", SERVING, "NOT_FOUND")
    assert await health(server.address, "", SETTINGS, 5.0) == "UNAVAILABLE"


class Page(http.server.BaseHTTPRequestHandler):
    """One page, at /metrics."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """A web server with that page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_asks_for_a_page(site: str) -> None:
    """A page that is there means serving; one that is not is said in words."""
    assert page(f"{site}/metrics", 5.0) == SERVING
    assert "404" in page(f"{site}/elsewhere", 5.0)
    assert "refused" in page("http://127.0.0.1:1/metrics", 5.0)
