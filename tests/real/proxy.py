"""A reverse proxy that is set up as README.md says."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Final

from tests.readme import snippet
from tests.real.port import Port
from tests.real.process import Daemon, require
from tests.s3.tls import Certificate

# What a machine may have for other sites, which must not spoil this one.
_NGINX: Final = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ }}
http {{
  access_log off;
  gzip on;
  gzip_types *;
  gzip_proxied any;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  {site}
}}
"""

_CERTIFICATE: Final = "/etc/ssl/cache.example.pem"
_SERVER: Final = "127.0.0.1:5000"
_LISTEN: Final = re.compile(r"(\*:)?443\b")
_MINUTES: Final = re.compile(r"\b(\d+)m\b")


@dataclass(frozen=True, slots=True)
class Software:
    """A program that is a reverse proxy; `around` is what there is besides README's lines."""

    name: str
    arguments: tuple[str, ...]
    around: str

    def __str__(self) -> str:
        return self.name


NGINX: Final = Software("nginx", ("-e", "stderr", "-c"), _NGINX)
HAPROXY: Final = Software("haproxy", ("-db", "-f"), "{site}")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy that ends TLS. Its minutes are seconds, so that tests see them pass."""

    daemon: Daemon
    host: str
    authority: Path

    @classmethod
    @contextmanager
    def running(
        cls,
        software: Software,
        folder: Path,
        hosts: Sequence[str],
        certificate: Certificate,
        changes: Mapping[str, str] | None = None,
    ) -> Iterator[Proxy]:
        """Stand before the servers `hosts`; `changes` are made in README's lines."""
        folder.mkdir()
        config, log = folder / "proxy.conf", folder / "proxy.log"
        command = (str(require(software.name)), *software.arguments, str(config))
        with closing(Port()) as port:
            lines = changed(snippet(software.name), changes or {})
            lines = lines.replace(_CERTIFICATE, str(_both(certificate, folder)))
            lines = _MINUTES.sub(r"\1s", placed(lines, port.number, hosts))
            config.write_text(software.around.format(site=lines, folder=folder))
            with Daemon.running(command, environment=os.environ, log=log) as daemon:
                daemon.wait_for(lambda: listens(port.number))
                yield cls(daemon, f"127.0.0.1:{port.number}", certificate.authority)

    def connect(self, source: str = "127.0.0.1") -> HTTPSConnection:
        """As a client with the loopback address `source`."""
        trusted = ssl.create_default_context(cafile=self.authority)
        return HTTPSConnection(self.host, timeout=60, context=trusted, source_address=(source, 0))

    @property
    def written(self) -> int:
        """How many bytes it has written to disks so far."""
        told = Path(f"/proc/{self.daemon.pid}/io").read_text()
        return int(re.findall(r"^write_bytes: (\d+)", told, re.MULTILINE)[0])


def changed(text: str, changes: Mapping[str, str]) -> str:
    """The text with other words in it, each of which must be there once."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def placed(text: str, port: int, hosts: Sequence[str]) -> str:
    """README's lines with addresses of the tests, and a line for each of `hosts`."""
    [line] = (line for line in text.splitlines() if _SERVER in line)
    servers = (
        line.replace(_SERVER, host).replace("replica1", f"replica{number}")
        for number, host in enumerate(hosts, 1)
    )
    return _LISTEN.sub(f"127.0.0.1:{port}", text.replace(line, "\n".join(servers)))


def _both(certificate: Certificate, folder: Path) -> Path:
    """A certificate and its key in one file."""
    file = folder / "both.pem"
    file.write_text(certificate.file.read_text() + certificate.key.read_text())
    return file


def listens(port: int) -> bool | None:
    """True if a server listens on a loopback port, else None."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return None
    return True
