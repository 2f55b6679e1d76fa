"""nginx on a folder of files: as cheap as serving them can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.real.nginx import Nginx
from tests.s3.tls import Certificate

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
  server {{ {listen}; root {files}; }}
}}
"""


@contextmanager
def nginx(folder: Path, files: Path, certificate: Certificate | None = None) -> Iterator[str]:
    """Serve `files` with one process; yields its address and port."""

    def config(port: int) -> str:
        listen = f"listen 127.0.0.1:{port}"
        if certificate is not None:
            key = f"ssl_certificate_key {certificate.key}"
            listen = f"{listen} ssl; ssl_certificate {certificate.file}; {key}"
        return _CONFIG.format(folder=folder, files=files, listen=listen)

    with Nginx.started(folder, config) as started:
        yield started.host
