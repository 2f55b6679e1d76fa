"""A server behind a proxy that does what a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_METHODS: Final = ("do_GET", "do_HEAD", "do_PUT", "do_POST", "do_PATCH")


class Exchange(BaseHTTPRequestHandler):
    """A request, and the answer to it."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def begin(self, status: int, length: int, content_type: str = "text/plain") -> None:
        """Send the head of an answer that has `length` bytes."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, status: int, content: bytes = b"", content_type: str = "text/plain") -> None:
        self.begin(status, len(content), content_type)
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Who leaves early is what some tests are about."""


@contextmanager
def origin(handle: Callable[[Exchange], None]) -> Iterator[str]:
    """Serve every request by `handle`, in a thread for each connection; yields the address."""

    handler = type("Handler", (Exchange,), dict.fromkeys(_METHODS, handle))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
