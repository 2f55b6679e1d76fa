"""A client that asks for one thing again and again, and costs little itself.

It speaks just enough HTTP/1.1: a request is bytes made beforehand, an answer is its Content-Length.
Bodies are thrown away inside the kernel, so what is measured is the server.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BUFFER_BYTES: Final = 4 << 20
_STALLED_SECONDS: Final = 60

# What BuildKit sends, as far as a server looks at it.
_HEADERS: Final = (
    "User-Agent: buildkit/v0.24\r\n"
    "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json,"
    " application/vnd.docker.distribution.manifest.v2+json, */*\r\n"
    "Connection: keep-alive\r\n"
)


class LoadError(Exception):
    """A server did not answer as it must; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Done:
    """Finished requests, and the bytes of their bodies."""

    requests: int
    bytes: int


class Target:
    """A request to one server: `method` and `path` with no body; `more` are lines of its head."""

    def __init__(self, host: str, method: str, path: str, more: str = "") -> None:
        self.host = host
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{_HEADERS}{more}\r\n"
        self.request = head.encode()
        self.bodies = method != "HEAD"


class Connection:
    """One request at a time; `left` is how many bytes of the body are still to come."""

    __slots__ = ("_buffer", "_head", "bodies", "left", "received", "request", "socket")

    def __init__(self, target: Target, buffer: bytearray) -> None:
        self.socket = connect(target.host)
        self.request = target.request
        self.bodies = target.bodies
        self._buffer = buffer
        self._head = b""
        self.left = 0
        self.received = 0

    def begin(self) -> None:
        self.socket.send(self.request)

    def take(self) -> bool:
        """Take what has come; whether the answer is complete."""
        if self.left:
            count = self.socket.recv_into(
                self._buffer, min(self.left, _BUFFER_BYTES), socket.MSG_TRUNC
            )
            if not count:
                raise LoadError("the connection ended inside a body")
            self.left -= count
            self.received += count
            return not self.left
        return self._take_head()

    def _take_head(self) -> bool:
        self._head += self.socket.recv(65536)
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            if not head:
                raise LoadError("the connection ended")
            return False
        length = _LENGTH.search(head)
        if head[9:12] != b"200" or length is None:
            raise LoadError(self._head.decode(errors="replace"))
        self._head = b""
        if self.bodies:
            self.received += len(body)
            self.left = int(length[1]) - len(body)
        return not self.left


def run(target: Target, connections: int, seconds: float) -> Done:
    """Ask over so many connections for so long; what has begun by then is finished."""
    buffer = bytearray(_BUFFER_BYTES)
    requests = 0
    with _connected(target, connections, buffer) as (poll, by_fd):
        deadline = time.monotonic() + seconds
        asking = len(by_fd)
        while asking:
            events = poll.poll(_STALLED_SECONDS)
            if not events:
                raise LoadError("nothing came")
            late = time.monotonic() > deadline
            for fd, _ in events:
                connection = by_fd[fd]
                if connection.take():
                    requests += 1
                    if late:
                        asking -= 1
                    else:
                        connection.begin()
        return Done(requests, sum(each.received for each in by_fd.values()))


@contextmanager
def _connected(
    target: Target, count: int, buffer: bytearray
) -> Iterator[tuple[select.epoll, dict[int, Connection]]]:
    """Connections by descriptor, each of which has asked once, and a poll for all of them."""
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        by_fd: dict[int, Connection] = {}
        for _ in range(count):
            connection = Connection(target, buffer)
            stack.enter_context(connection.socket)
            by_fd[connection.socket.fileno()] = connection
            poll.register(connection.socket, select.EPOLLIN)
            connection.begin()
        yield poll, by_fd


def connect(host: str) -> socket.socket:
    """A connection to an address and port."""
    address, _, port = host.rpartition(":")
    connection = socket.create_connection((address, int(port)), timeout=_STALLED_SECONDS)
    # A time limit makes a socket non-blocking, at the cost of a poll before each call.
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
