"""The server under test, as a process of its own and inside the test."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Protocol

import aiohttp

from cacheproxy.access.control import Access
from cacheproxy.app import App
from cacheproxy.config import load
from cacheproxy.listening import Listeners
from cacheproxy.registry.tickets import load_secret
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
from tests.real.process import Daemon

SERVE = (sys.executable, "-m", "cacheproxy", "serve")
QUICK = (sys.executable, "-P", str(Path(__file__).with_name("quick.py")), "serve")
"""The same for SeaweedFS, started sooner, where a test is not about the start."""


class S3(Protocol):
    """An S3 server of the tests."""

    @property
    def endpoint(self) -> str: ...
    @property
    def bucket(self) -> str: ...
    @property
    def environment(self) -> dict[str, str]: ...


class Server:
    """A running `cacheproxy serve`; `host` is its address and port, `data` where its files are."""

    def __init__(self, daemon: Daemon, host: str, data: Path) -> None:
        self.daemon = daemon
        self.host = host
        self.data = data

    @classmethod
    @contextmanager
    def running(
        cls, folder: Path, *flags: str, port: int = 0, command: Sequence[str] = SERVE
    ) -> Iterator[Server]:
        """Serve the files in `folder`/data on a loopback port, with these flags besides."""
        data = folder / "data"
        storage = f"--storage=file://{data}"
        command = (*command, storage, *flags)
        with cls._started(folder, os.environ, port, command) as (daemon, host):
            yield cls(daemon, host, data)

    @classmethod
    @contextmanager
    def on_s3(
        cls,
        folder: Path,
        s3: S3,
        prefix: str,
        *flags: str,
        port: int = 0,
        command: Sequence[str] = SERVE,
    ) -> Iterator[Server]:
        """Serve what is below `prefix` in the bucket of `s3`, with a tier in `folder`."""
        folder.mkdir(exist_ok=True)
        environment, options = on_s3(folder, s3, prefix)
        command = (*command, *options, *flags)
        with cls._started(folder, environment, port, command) as (daemon, host):
            yield cls(daemon, host, folder / "cacheproxy")

    @classmethod
    @contextmanager
    def _started(
        cls, folder: Path, environment: Mapping[str, str], port: int, command: Sequence[str]
    ) -> Iterator[tuple[Daemon, str]]:
        command = (*command, f"--listen=127.0.0.1:{port}")
        # What several workers share, they leave behind when they are killed.
        environment = {**environment, "TMPDIR": str(folder)}
        with Daemon.running(command, environment=environment, log=folder / "server.log") as daemon:
            yield daemon, daemon.wait_for_log(r'"listen":"([^"]+)"')[1]
            # It would wait a while for clients that keep their connections; how it ends when it is
            # asked to is for tests that ask it to.
            daemon.kill_all()

    def get(self, path: str) -> str:
        """The body of an answer with a status below 400."""
        with urllib.request.urlopen(f"http://{self.host}{path}", timeout=60) as answer:
            return str(answer.read().decode())


def on_s3(folder: Path, s3: S3, prefix: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment and the flags of a server in S3, whose tier is in `folder`."""
    environment = {**os.environ, **s3.environment, "XDG_CACHE_HOME": str(folder)}
    flags = (f"--storage=s3://{s3.bucket}/{prefix}", f"--s3-endpoint-url={s3.endpoint}")
    return environment, (*flags, "--s3-path-style=true")


@asynccontextmanager
async def serving(
    data: Path, access: Access | None = None, bucket: Bucket | None = None, **settings: object
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client session against an `App` in this process, whose `settings` are named
    `metrics__listen` and so on. Without a bucket, the folder `data` is one; with one, the tier is
    there. The client decodes nothing."""
    flags = {name.replace("__", "."): str(value) for name, value in settings.items()}
    config = load(flags, {"HOME": str(data), "XDG_CACHE_HOME": str(data)})
    data.mkdir(exist_ok=True)
    bucket = bucket or FolderBucket(str(data))
    app = App(config, bucket, await load_secret(bucket), access)
    with closing(Listeners.bound("127.0.0.1:0", config.metrics.listen)) as listeners:
        base = f"http://{listeners.address}"
        async with (
            app.serving(listeners.clients, listeners.operators),
            aiohttp.ClientSession(base, auto_decompress=False) as session,
        ):
            yield session
