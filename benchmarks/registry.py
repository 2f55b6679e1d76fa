"""A client of one registry that pushes as BuildKit does: POST, then PUT of the whole."""

from __future__ import annotations

import re
import socket
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from benchmarks.content import Body
from benchmarks.load import LoadError, connect

REPOSITORY: Final = "bench/app"

_LOCATION: Final = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Registry:
    """One connection to a registry, kept alive."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._socket = connect(host)

    def push(self, body: Body) -> None:
        """Push a blob."""
        self.begin(body)
        body.send(self._socket)
        self.end()

    def begin(self, body: Body) -> None:
        """Open a session and send the head of the PUT."""
        self._send("POST", f"/v2/{REPOSITORY}/blobs/uploads/", 0)
        location = _LOCATION.search(self._receive(202))
        if location is None:
            raise LoadError("no Location")
        # Either form is allowed, and both are met.
        parts = urlsplit(location[1].decode())
        query = f"{parts.query}&" if parts.query else ""
        self._send("PUT", f"{parts.path}?{query}digest={body.digest}", body.size)

    def send(self, body: Body, start: int, count: int) -> None:
        """Send a piece of the body of the PUT."""
        body.send(self._socket, start, count)

    def end(self) -> None:
        """Wait until the blob is stored."""
        self._receive(201)

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Push a manifest under a tag or digest."""
        path = f"/v2/{REPOSITORY}/manifests/{reference}"
        self._send("PUT", path, len(data), f"Content-Type: {media_type}\r\n")
        self._socket.sendall(data)
        self._receive(201)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, length: int, headers: str = "") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {length}\r\n"
        more = socket.MSG_MORE if length else 0
        self._socket.sendall(f"{head}{headers}\r\n".encode(), more)

    def _receive(self, status: int) -> bytes:
        """The head of an answer that has this status; its body is read and dropped."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        left = (int(length[1]) if length else 0) - len(body)
        while left > 0:
            left -= len(self._more())
        if head[9:12] != str(status).encode():
            raise LoadError(data.decode(errors="replace"))
        return head

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise LoadError("the connection ended before the answer")
        return data
