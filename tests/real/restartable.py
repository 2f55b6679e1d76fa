"""A registry that is killed and started again, at the same address, over what it has stored."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from tests.real.distribution import distribution
from tests.real.port import Port
from tests.real.process import Daemon
from tests.server import QUICK, S3, on_s3


class Restartable:
    """One server. It has to be started by a thread that outlives it, see `process._leashed`."""

    def __init__(
        self, port: Port, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        """Use `replica` or `control`."""
        self.host = port.host
        self.folder = folder
        self.daemon: Daemon | None = None
        self._command = command
        self._environment = environment
        self._port = port
        self._running = ExitStack()

    @classmethod
    def replica(cls, folder: Path, s3: S3, prefix: str, *flags: str) -> Restartable:
        """This registry, over `prefix` in the bucket of `s3`, with a tier of its own."""
        folder.mkdir()
        port = Port()
        environment, options = on_s3(folder, s3, prefix)
        command = (*QUICK, f"--listen={port.host}", *options, *flags)
        return cls(port, command, environment, folder)

    @classmethod
    def control(cls, folder: Path) -> Restartable:
        """CNCF distribution over a folder."""
        folder.mkdir()
        port = Port()
        return cls(port, *distribution(folder, port.number), folder)

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        log = self.folder / "registry.log"
        self.daemon = self._running.enter_context(
            Daemon.running(self._command, environment=self._environment, log=log)
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        assert self.daemon, "it is not started"
        self.daemon.wait_for(self.answers)

    def answers(self) -> bool | None:
        with closing(http.client.HTTPConnection(self.host, timeout=10)) as connection:
            try:
                connection.request("GET", "/v2/")
                return connection.getresponse().status == 200 or None
            except (OSError, http.client.HTTPException):
                return None

    def kill(self) -> None:
        """kill -9."""
        assert self.daemon, "it is not started"
        self.daemon.kill_all()
        self._running.close()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.daemon, "it is not started"
        self.daemon.signal(signal.SIGTERM)
        status = self.daemon.wait_for_end()
        self._running.close()
        return status

    def close(self) -> None:
        self._running.close()
        self._port.close()
