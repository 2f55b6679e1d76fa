"""Ports for servers that have to be told theirs."""

from __future__ import annotations

import socket


class Port:
    """A loopback port that no other program takes while nobody listens on it."""

    def __init__(self) -> None:
        # Bound but not listening, it lets a server listen that sets the same option.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.number = int(self._holder.getsockname()[1])
        self.host = f"127.0.0.1:{self.number}"

    def close(self) -> None:
        self._holder.close()
