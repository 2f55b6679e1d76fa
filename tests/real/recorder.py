"""A proxy that writes down what was asked and answered, where the registry's log is too short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.nginx import Nginx

_SETTINGS = """\
log_format exchange escape=json '{{"path":"$uri","ranges":"$http_range","status":$status,'
  '"content_type":"$sent_http_content_type","sent":$body_bytes_sent}}';
access_log {log} exchange;
"""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer."""

    path: str
    ranges: str
    status: int
    content_type: str
    sent: int


class Recorder:
    """A running nginx that passes every request on and writes it down."""

    def __init__(self, nginx: Nginx, log: Path) -> None:
        self.host = nginx.host
        self._daemon = nginx.daemon
        self._log = log

    @classmethod
    @contextmanager
    def running(cls, folder: Path, host: str) -> Iterator[Recorder]:
        """Stand before the registry `host`; the recorder keeps its files in `folder`."""
        log = folder / "exchanges.log"
        with Nginx.running(folder, host, _SETTINGS.format(log=log)) as nginx:
            yield cls(nginx, log)

    def wait_for(self, path: str, number: int) -> list[Exchange]:
        """The exchanges of `path`, once there are `number`: they are written down when over."""

        def look() -> list[Exchange] | None:
            lines = self._log.read_text().splitlines(keepends=True)
            exchanges = [Exchange(**json.loads(line)) for line in lines if line.endswith("\n")]
            found = [exchange for exchange in exchanges if exchange.path == path]
            return found if len(found) >= number else None

        return self._daemon.wait_for(look)
