"""nginx on a folder of files: as cheap as serving them can be."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.real.process import Daemon, require

_CONFIG: Final = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
"""


@contextmanager
def nginx(folder: Path, files: Path) -> Iterator[str]:
    """Serve `files` with one process; yields its address and port."""
    port = _free_port()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, files=files, port=port))
    command = (str(require("nginx")), "-c", str(config), "-e", "stderr", "-p", str(folder))
    log = folder / "nginx.log"
    with Daemon.running(command, environment=os.environ, log=log) as daemon:
        daemon.wait_for(lambda: _answers(port))
        yield f"127.0.0.1:{port}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool | None:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return None
    return True
