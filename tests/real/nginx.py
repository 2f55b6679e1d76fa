"""nginx between a client and a registry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.readme import snippet
from tests.real.port import Port
from tests.real.process import Daemon, require
from tests.real.proxy import changed, listens, placed

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
  {site}
}}
"""

_WITHOUT_TLS = {
    "listen 443 ssl;": "listen 443;",
    "ssl_certificate /etc/ssl/cache.example.pem;": "",
    "ssl_certificate_key /etc/ssl/cache.example.pem;": "",
}


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
        """Pass requests on to each of `hosts` in turn, as README.md says, but without TLS."""
        lines = changed(snippet("nginx"), _WITHOUT_TLS)

        def config(port: int) -> str:
            return _BALANCER.format(folder=folder, site=placed(lines, port, hosts))

        with cls.started(folder, config) as started:
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
                daemon.wait_for(lambda: listens(port.number))
                yield cls(daemon, port.host)
