"""SeaweedFS, near and far, and the servers that keep their content there."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.content import Body
from benchmarks.peers import Peer, started
from benchmarks.registry import Registry
from tests.real.distribution import Distribution
from tests.real.home import Home
from tests.real.process import Daemon, require
from tests.real.seaweed import SeaweedFS
from tests.s3.process import ProxyProcess
from tests.s3.signing import Signer
from tests.server import Server

FAR: Final = 0.02
"""Seconds that each call takes longer when S3 is far."""

_MEMORY: Final = "/dev/shm"
_REGION: Final = "us-east-1"

# The cache is in memory, as in the example that distribution's documentation gives.
_CONFIG: Final = """\
version: 0.1
log:
  accesslog:
    disabled: true
storage:
  s3:
    region: {region}
    regionendpoint: {s3.endpoint}
    forcepathstyle: true
    secure: false
    accesskey: {s3.access_key}
    secretkey: {s3.secret_key}
    bucket: {s3.bucket}
    rootdirectory: /{prefix}
  redirect:
    disable: true
  cache:
    blobdescriptor: inmemory
http:
  addr: 127.0.0.1:0
"""


@dataclass(frozen=True, slots=True)
class S3:
    """A bucket at an address. What is at one address of a `Store` is there at the other too."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    environment: dict[str, str]

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    def put(self, connection: Registry, body: Body) -> None:
        """Make a body an object, without any registry."""
        connection.put(self._signed("PUT", body), body)

    def get(self, connection: Registry, body: Body) -> None:
        """Read it."""
        connection.get(self._signed("GET", body), body)

    def _signed(self, method: str, body: Body) -> str:
        signer = Signer(self.endpoint, self.access_key, self.secret_key)
        url = signer.presign(method, f"/{self.bucket}/alone/{body.digest}")
        return url.removeprefix(self.endpoint)


@dataclass(frozen=True, slots=True)
class Store:
    """One SeaweedFS: `near` itself, `far` through a proxy, which counts besides."""

    near: S3
    far: S3
    proxy: ProxyProcess

    def at(self, delay: float) -> S3:
        """The address to call if each call is to take so many seconds longer."""
        self.proxy.delay(delay)
        return self.far if delay else self.near


@contextmanager
def store(delay: float = FAR) -> Iterator[Store]:
    """An empty one, in memory: its disk would be another machine's, and not the servers'."""
    with (
        tempfile.TemporaryDirectory(prefix="cacheproxy-s3-", dir=_MEMORY) as folder,
        SeaweedFS.running(Path(folder) / "s3") as weed,
        ProxyProcess.running(weed.endpoint, delay=delay) as proxy,
    ):
        yield Store(_s3(weed, weed.endpoint), _s3(weed, proxy.url), proxy)


def _s3(weed: SeaweedFS, endpoint: str) -> S3:
    return S3(endpoint, weed.bucket, weed.access_key, weed.secret_key, weed.environment)


@contextmanager
def cacheproxy(folder: Path, s3: S3, prefix: str) -> Iterator[Peer]:
    """This server, whose tier is in `folder`."""
    folder.mkdir(parents=True)
    with started(lambda: Server.on_s3(folder, s3, prefix)) as (server, process):
        yield Peer("cacheproxy", server.host, process)


@contextmanager
def distribution(folder: Path, s3: S3, prefix: str) -> Iterator[Peer]:
    """The CNCF registry, with its S3 driver."""
    folder.mkdir(parents=True)
    with started(lambda: _distribution(folder, s3, prefix)) as (registry, process):
        yield Peer("distribution", registry.host, process)


Start = Callable[[Path, S3, str], AbstractContextManager[Peer]]

STARTS: Final[Mapping[str, Start]] = {"cacheproxy": cacheproxy, "distribution": distribution}


class Place:
    """A prefix of a bucket that nobody else has, and the server that keeps its content there."""

    def __init__(self, name: str, folder: Path) -> None:
        """`name` is that of the server; each time, it starts with a folder of its own."""
        self.name = name
        self._folder = folder
        self._prefix = f"{name}-{secrets.token_hex(4)}"
        self._times = 0

    def served(self, s3: S3) -> AbstractContextManager[Peer]:
        """A server that has nothing in memory, and nothing on its disk."""
        self._times += 1
        folder = self._folder / f"{self._prefix}-{self._times}"
        return STARTS[self.name](folder, s3, self._prefix)


@contextmanager
def _distribution(folder: Path, s3: S3, prefix: str) -> Iterator[Distribution]:
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(region=_REGION, s3=s3, prefix=prefix))
    environment = Home(folder / "home").environment | {"OTEL_TRACES_EXPORTER": "none"}
    command = (str(require("registry")), "serve", str(config))
    log = folder / "registry.log"
    with Daemon.running(command, environment=environment, log=log) as daemon:
        yield Distribution(daemon.wait_for_log(r"listening on (127\.0\.0\.1:\d+)")[1])


def buildkit_cache(s3: S3, name: str) -> str:
    """What to tell BuildKit for a cache that it keeps in S3 itself."""
    settings = {
        "type": "s3",
        "region": _REGION,
        "bucket": s3.bucket,
        "prefix": f"{name}/",
        "name": name,
        "endpoint_url": s3.endpoint,
        "use_path_style": "true",
        "access_key_id": s3.access_key,
        "secret_access_key": s3.secret_key,
    }
    return ",".join(f"{key}={value}" for key, value in settings.items())
