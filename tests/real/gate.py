"""A proxy that asks for a login, so that clients send the credentials they have."""

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
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  server {{
    listen 127.0.0.1:{port};
    auth_basic registry;
    auth_basic_user_file {folder}/users;
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
class Gate:
    """A running nginx that passes every request with the right login on, credentials and all."""

    host: str

    @classmethod
    @contextmanager
    def running(cls, folder: Path, host: str, user: str, password: str) -> Iterator[Gate]:
        """Guard the registry `host`; the gate keeps its files in `folder`."""
        port = _free_port()
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, host=host, port=port))
        (folder / "users").write_text(f"{user}:{{PLAIN}}{password}\n")
        command = (str(require("nginx")), "-c", str(config), "-e", "stderr", "-p", str(folder))
        log = folder / "nginx.log"
        with Daemon.running(command, environment=os.environ, log=log) as daemon:
            daemon.wait_for(lambda: _answers(port))
            yield cls(f"127.0.0.1:{port}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool | None:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return None
    return True
