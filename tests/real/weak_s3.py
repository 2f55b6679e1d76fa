"""S3 servers that ignore what the server relies on, conditional writes above all."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.home import Home
from tests.real.port import Port
from tests.real.process import Daemon, require
from tests.real.seaweed import credentials
from tests.s3.signing import Signer

_ACCESS_KEY = "cacheproxy"
_SECRET_KEY = "secret-of-the-tests"


@dataclass(frozen=True, slots=True)
class WeakS3:
    """A running S3 server with one key pair and one bucket."""

    endpoint: str
    bucket: str
    access_key: str = _ACCESS_KEY
    secret_key: str = _SECRET_KEY

    @property
    def signer(self) -> Signer:
        return Signer(self.endpoint, self.access_key, self.secret_key)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that give a program the key pair, and no other settings."""
        return credentials(self.access_key, self.secret_key)


@contextmanager
def rclone(folder: Path) -> Iterator[WeakS3]:
    """rclone: a bucket is a folder; conditions are ignored without a word."""
    home = Home(folder / "home")
    (folder / "data" / "cache").mkdir(parents=True)
    log = folder / "rclone.log"
    with closing(Port()) as port:
        command = (
            *(str(require("rclone")), "serve", "s3", "--config", os.devnull),
            *("--addr", port.host, "--auth-key", f"{_ACCESS_KEY},{_SECRET_KEY}"),
            str(folder / "data"),
        )
        with Daemon.running(command, environment=home.environment, log=log) as daemon:
            daemon.wait_for_log("Starting s3 server")
            yield _ready(daemon, WeakS3(f"http://{port.host}", "cache"))
            daemon.kill_all()


@contextmanager
def juicefs(folder: Path, flags: Sequence[str] = ()) -> Iterator[WeakS3]:
    """JuiceFS's gateway, whose front end is a MinIO of 2021; its only bucket is the volume."""
    home = Home(folder / "home", MINIO_ROOT_USER=_ACCESS_KEY, MINIO_ROOT_PASSWORD=_SECRET_KEY)
    meta = f"sqlite3://{folder / 'meta.db'}"
    data = ("--storage", "file", "--bucket", f"{folder / 'data'}/")
    home.run("juicefs", "format", *data, "--trash-days", "0", meta, "cache")
    log = folder / "juicefs.log"
    with closing(Port()) as port:
        command = (
            *(str(require("juicefs")), "gateway", "--no-usage-report", "--no-banner"),
            *("--cache-dir", str(folder / "cache"), "--metrics", "127.0.0.1:0", *flags),
            *(meta, port.host),
        )
        with Daemon.running(command, environment=home.environment, log=log) as daemon:
            yield _ready(daemon, WeakS3(f"http://{port.host}", "cache"))
            daemon.kill_all()


def _ready(daemon: Daemon, server: WeakS3) -> WeakS3:
    """Return `server` once it answers a signed request."""

    def look() -> WeakS3 | None:
        url = server.signer.presign("GET", f"/{server.bucket}", {"list-type": "2"})
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except OSError:
            return None
        return server

    return daemon.wait_for(look)
