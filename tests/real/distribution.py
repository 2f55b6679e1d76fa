"""The CNCF registry, as a peer and as the control that shows the tests themselves are right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.home import Home
from tests.real.process import Daemon, require

_CONFIG = """\
version: 0.1
log:
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {folder}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A running registry."""

    host: str

    @classmethod
    @contextmanager
    def running(cls, folder: Path, **variables: str) -> Iterator[Distribution]:
        """Serve the files in `folder` on a free loopback port, with these settings besides."""
        command, environment = distribution(folder, port=0)
        environment |= variables
        log = folder / "registry.log"
        with Daemon.running(command, environment=environment, log=log) as daemon:
            yield cls(daemon.wait_for_log(r"listening on (127\.0\.0\.1:\d+)")[1])


def distribution(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command that serves the files in `folder` on a loopback port, and its environment."""
    home = Home(folder / "home")
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(folder=folder / "storage", port=port))
    environment = home.environment | {"OTEL_TRACES_EXPORTER": "none"}
    return [str(require("registry")), "serve", str(config)], environment
