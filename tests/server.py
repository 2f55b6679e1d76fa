"""The server under test, as a process of its own and inside the test."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp

from cacheproxy.access.policy import Policy
from cacheproxy.app import App
from cacheproxy.config import load
from cacheproxy.listening import address_of, bind
from cacheproxy.registry.tickets import load_secret
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
from tests.real.process import Daemon


class Server:
    """A running `cacheproxy serve`; `host` is its address and port."""

    def __init__(self, daemon: Daemon, host: str, data: Path) -> None:
        self.daemon = daemon
        self.host = host
        self.data = data

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *flags: str, port: int = 0) -> Iterator[Server]:
        """Serve the files in `folder`/data on a loopback port, with these flags besides."""
        data = folder / "data"
        command = (
            *(sys.executable, "-m", "cacheproxy", "serve"),
            f"--listen=127.0.0.1:{port}",
            f"--storage=file://{data}",
            *flags,
        )
        with Daemon.running(command, environment=os.environ, log=folder / "server.log") as daemon:
            match = daemon.wait_for_log(r'"listen":"([^"]+)"')
            yield cls(daemon, match[1], data)

    def get(self, path: str) -> str:
        """The body of an answer with a status below 400."""
        with urllib.request.urlopen(f"http://{self.host}{path}", timeout=30) as answer:
            return str(answer.read().decode())


@asynccontextmanager
async def serving(
    data: Path, policy: Policy | None = None, bucket: Bucket | None = None, **settings: object
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client session against an `App` in this process, whose `settings` are named
    `server__listen` and so on. Without a bucket, the folder `data` is one; with one, the tier is
    there. The client decodes nothing."""
    flags = {name.replace("__", "."): str(value) for name, value in settings.items()}
    config = load(flags, {"HOME": str(data), "XDG_CACHE_HOME": str(data)})
    data.mkdir(exist_ok=True)
    bucket = bucket or FolderBucket(str(data))
    app = App(config, bucket, await load_secret(bucket), policy)
    with bind("127.0.0.1:0") as listener:
        base = f"http://{address_of(listener)}"
        async with (
            app.serving(listener),
            aiohttp.ClientSession(base, auto_decompress=False) as session,
        ):
            yield session
