"""A client of one registry that pushes as BuildKit does: POST, then PUT of the whole."""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from benchmarks.content import Body
from benchmarks.load import Done, LoadError, connect

REPOSITORY: Final = "bench/app"

_LOCATION: Final = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# All share it, since nothing is ever written to it.
_BUFFER: Final = bytearray(4 << 20)


class Registry:
    """One connection to a registry, kept alive."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._socket = self._connect()

    def push(self, body: Body) -> None:
        """Push a blob."""
        self.begin(body)
        self.send(body, 0, body.size)
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

    def pull(self, body: Body) -> None:
        """Get a blob."""
        self.get(f"/v2/{REPOSITORY}/blobs/{body.digest}", body)

    def get(self, path: str, body: Body) -> None:
        """Get a body from wherever it is."""
        self._send("GET", path, 0)
        self._expect(200, body.size)

    def put(self, path: str, body: Body) -> None:
        """Put a body anywhere."""
        self._send("PUT", path, body.size)
        self.send(body, 0, body.size)
        self._receive(200)

    def head(self, body: Body) -> None:
        """Look for a blob."""
        self._send("HEAD", f"/v2/{REPOSITORY}/blobs/{body.digest}", 0)
        self._head(200)

    def get_manifest(self, reference: str, media_type: str) -> None:
        """Get a manifest by its tag or digest."""
        path = f"/v2/{REPOSITORY}/manifests/{reference}"
        self._send("GET", path, 0, f"Accept: {media_type}\r\n")
        self._receive(200)

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

    def _connect(self) -> socket.socket:
        return connect(self.host)

    def _send(self, method: str, path: str, length: int, headers: str = "") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {length}\r\n"
        self._write(f"{head}{headers}\r\n".encode(), more=length > 0)

    def _write(self, data: bytes, *, more: bool) -> None:
        self._socket.sendall(data, socket.MSG_MORE if more else 0)

    def _receive(self, status: int) -> bytes:
        """The head of an answer that has this status; its body is read and dropped."""
        head, body = self._head(status)
        length = _LENGTH.search(head)
        self._drop((int(length[1]) if length else 0) - len(body))
        return head

    def _expect(self, status: int, size: int) -> None:
        """Drop an answer that has this status and `size` bytes."""
        length = _LENGTH.search(self._receive(status))
        if length is None or int(length[1]) != size:
            raise LoadError(f"it is not of {size} bytes")

    def _head(self, status: int) -> tuple[bytes, bytes]:
        """The head of an answer that has this status, and what came of its body with it."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        if head[9:12] != str(status).encode():
            raise LoadError(data.decode(errors="replace"))
        return head, body

    def _drop(self, left: int) -> None:
        while left > 0:
            count = self._drop_some(min(left, len(_BUFFER)))
            if not count:
                raise LoadError("the connection ended inside a body")
            left -= count

    def _drop_some(self, most: int) -> int:
        """The kernel throws the bytes away."""
        return self._socket.recv_into(_BUFFER, most, socket.MSG_TRUNC)

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise LoadError("the connection ended before the answer")
        return data


Act = Callable[[Registry, Body], None]


def spread(host: str, connections: int, bodies: Sequence[Body], act: Act) -> Done:
    """Do something with each of the bodies, over so many connections at once."""
    todo = deque(bodies)

    def work() -> None:
        with Registry(host) as registry:
            while True:
                try:
                    body = todo.popleft()
                except IndexError:
                    return
                act(registry, body)

    with ThreadPoolExecutor(connections) as pool:
        for worker in [pool.submit(work) for _ in range(connections)]:
            worker.result()
    return Done(len(bodies), sum(body.size for body in bodies))
