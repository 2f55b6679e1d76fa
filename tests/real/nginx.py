"""nginx between a client and a registry."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.process import Daemon, require

_CONFIG = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ }}
http {{
  {settings}
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location / {{
      proxy_pass http://{host};
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $http_host;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx that passes requests on to a registry, all their headers included."""

    daemon: Daemon
    host: str

    @classmethod
    @contextmanager
    def running(cls, folder: Path, host: str, settings: str) -> Iterator[Nginx]:
        """Pass requests on to `host`; `settings` are more lines for the `http` block."""
        port = _free_port()
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, host=host, port=port, settings=settings))
        command = (str(require("nginx")), "-c", str(config), "-e", "stderr", "-p", str(folder))
        log = folder / "nginx.log"
        with Daemon.running(command, environment=os.environ, log=log) as daemon:
            daemon.wait_for(lambda: _answers(port))
            yield cls(daemon, f"127.0.0.1:{port}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool | None:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return None
    return True
