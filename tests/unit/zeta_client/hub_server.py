"""A small hub on this machine: the part of its API that fetching needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/model"


@dataclass(slots=True)
class Hub:
    """What it holds, and what it was asked."""

    files: Mapping[str, bytes]
    revisions: tuple[str, ...] = ("main", "v1", COMMIT)
    gated: bool = False
    lies: set[str] = field(default_factory=set)
    """Files that come with other bytes than were listed, once each."""
    breaks_after: dict[str, int] = field(default_factory=dict)
    """Files that are refused from so many bytes on, for ever until taken out."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Paths of files, and the ranges of them."""
    address: str = ""

    def tree(self) -> list[dict[str, object]]:
        """List every file as the hub does."""
        return [_entry(path, data) for path, data in self.files.items()]


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub of its server."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        """What is served."""
        assert isinstance(self.server, _Server)
        return self.server.hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer one question."""
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/?]+).*", self.path)
        file = re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", self.path)
        asked = api or file
        if asked is None or asked[1] != REPO:
            self._refuse(404, "RepoNotFound")
        elif self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif api:
            self._api(api[2], api[3])
        else:
            self._file(asked[2])

    def _api(self, what: str, revision: str) -> None:
        if revision not in self.hub.revisions:
            self._refuse(404, "RevisionNotFound")
            return
        found = {"id": REPO, "sha": COMMIT} if what == "revision" else self.hub.tree()
        self._send(200, json.dumps(found).encode())

    def _file(self, path: str) -> None:
        data, range_ = self.hub.files[path], self.headers.get("Range", "")
        self.hub.asked.append((path, range_))
        if path in self.hub.lies:
            self.hub.lies.remove(path)
            data = bytes(len(data))
        start = int(range_.removeprefix("bytes=").partition("-")[0] or 0)
        end = self.hub.breaks_after.get(path, len(data))
        if range_ and start >= end:
            self._refuse(500, "Broken")
            return
        total = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._send(206 if range_ else 200, data[start:], total if range_ else {}, stop=end)

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, stop: int = 2**40
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:stop])
        self.close_connection = stop < len(body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})


class _Server(ThreadingHTTPServer):
    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve *hub* on a free port."""
    server = _Server(hub)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(path: str, data: bytes) -> dict[str, object]:
    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": git}
    if path.endswith(".safetensors"):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
    return entry
