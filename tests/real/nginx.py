"""nginx between a client and a registry."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.real.port import Port
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

# No replica is taken out for a while: one that does not listen refuses at once, so the next is
# asked, and a moment later it may be back. Bodies of blobs are passed on as they come, so nginx
# cannot send them twice; BuildKit does that itself. It does not for manifests, so nginx keeps them
# until they are acknowledged. What is repeated is harmless: a manifest that is stored twice, a
# session that is begun and not used.
_BALANCER = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ }}
http {{
  log_format answer "$status $request_method $uri";
  access_log {folder}/access.log answer;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  upstream registry {{
    {servers}
    keepalive 32;
  }}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_connect_timeout 2s;
    proxy_read_timeout 1800s;
    proxy_send_timeout 1800s;
    proxy_next_upstream error timeout;
    location / {{
      proxy_pass http://registry;
    }}
    location ~ /manifests/ {{
      proxy_request_buffering on;
      proxy_pass http://registry;
    }}
    location ~ /blobs/uploads/$ {{
      proxy_next_upstream error timeout non_idempotent;
      proxy_pass http://registry;
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
        config = partial(_CONFIG.format, folder=folder, host=host, settings=settings)
        with cls.started(folder, lambda port: config(port=port)) as started:
            yield started

    @classmethod
    @contextmanager
    def balancing(cls, folder: Path, hosts: Sequence[str]) -> Iterator[Nginx]:
        """Pass requests on to each of `hosts` in turn, as is fit for replicas of a registry."""
        servers = "\n    ".join(f"server {host} max_fails=0;" for host in hosts)
        config = partial(_BALANCER.format, folder=folder, servers=servers)
        with cls.started(folder, lambda port: config(port=port)) as started:
            yield started

    @classmethod
    @contextmanager
    def started(cls, folder: Path, text: Callable[[int], str]) -> Iterator[Nginx]:
        """Run in `folder` with the configuration that `text` gives for a port."""
        config = folder / "nginx.conf"
        command = (str(require("nginx")), "-c", str(config), "-e", "stderr", "-p", str(folder))
        log = folder / "nginx.log"
        with closing(Port()) as port:
            config.write_text(text(port.number))
            with Daemon.running(command, environment=os.environ, log=log) as daemon:
                daemon.wait_for(lambda: _answers(port.number))
                yield cls(daemon, port.host)


def _answers(port: int) -> bool | None:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return None
    return True
