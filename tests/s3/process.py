"""The proxy before S3 as a process of its own, so that it takes no time from who measures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Seen(NamedTuple):
    """A call: what it was, and the bytes of bodies that went to S3 and to the client."""

    operation: str
    kind: str
    key: str
    sent: int
    received: int


class ProxyProcess:
    """A running proxy at `url`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Use `running`."""
        self._process = process
        self.url = self._line()

    @classmethod
    @contextmanager
    def running(cls, upstream: str, *, delay: float = 0.0) -> Iterator[ProxyProcess]:
        """Serve on a loopback port; `upstream` is the URL of an S3 server, without a path."""
        command = (sys.executable, "-m", "tests.s3", upstream, f"--delay={delay}")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def delay(self, seconds: float) -> None:
        """Add so much to every call from now on."""
        self._ask(f"delay {seconds}")

    def take(self) -> list[Seen]:
        """The calls since the last time, in the order in which they came."""
        return [Seen(*each) for each in json.loads(self._ask("calls"))]

    def _ask(self, line: str) -> str:
        assert self._process.stdin
        print(line, file=self._process.stdin, flush=True)
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError("the proxy has ended")
        return line.strip()
