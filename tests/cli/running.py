"""Commands as processes, beside a server that builders push to."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec

from cacheproxy.oci.digest import digest_of
from cacheproxy.registry.batches import read_batch, write_batch
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace
from tests.api.wire import MANIFEST
from tests.real.process import Output, attempt
from tests.real.seaweed import SeaweedFS
from tests.registry.exports import Export
from tests.server import QUICK, S3, Server, on_s3

COMMAND = (sys.executable, "-m", "cacheproxy")
HASTY = (sys.executable, "-P", str(Path(__file__).with_name("hasty.py")))
"""The same, but for a quarantine that does not wait."""

_SECONDS = 60
_DAYS = 3 * 86400.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Site:
    """Where a registry is, for commands: with these flags and variables."""

    flags: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def run(self, *arguments: str, command: tuple[str, ...] = COMMAND) -> Output:
        """Run a command to its end."""
        command = (*command, *arguments, *self.flags)
        return attempt(command, environment=self.environment, seconds=_SECONDS)

    def told(self, *arguments: str, status: int = 0) -> str:
        """What a command prints that says nothing on standard error."""
        output = self.run(*arguments)
        assert (output.status, output.stderr) == (status, ""), output
        return output.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.told(*arguments, "--json"))

    def fails(self, *arguments: str) -> str:
        """The one line with which a command says that it cannot do something."""
        output = self.run(*arguments)
        assert output.status not in (0, None), output
        assert output.stdout == ""
        [line] = output.stderr.splitlines()
        assert line.startswith("cacheproxy: ")
        return line.removeprefix("cacheproxy: ")


def in_folder(data: Path) -> Site:
    return Site((f"--storage=file://{data}",))


def in_s3(folder: Path, s3: S3, prefix: str) -> Site:
    environment, flags = on_s3(folder, s3, prefix)
    return Site(flags, environment)


class Builder:
    """Who pushes to a server and pulls from it."""

    def __init__(self, host: str, repository: str = "ci/app") -> None:
        self._base = f"http://{host}/v2/{repository}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        request = urllib.request.Request(self._base + path, body, method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def push_blob(self, content: bytes) -> str:
        digest = str(digest_of(content))
        answer = self.ask("POST", f"/blobs/uploads/?digest={digest}", content)
        assert answer.status == 201, answer
        return digest

    def push_manifest(self, reference: str, data: bytes, media_type: str = MANIFEST) -> str:
        answer = self.ask("PUT", f"/manifests/{reference}", data, Content_Type=media_type)
        assert answer.status == 201, answer
        return str(answer.headers["Docker-Content-Digest"])

    def export(self, export: Export, tag: str = "cache") -> str:
        """Export a build's cache."""
        for content in (*export.layers.values(), export.written.config):
            self.push_blob(content)
        return self.push_manifest(tag, export.written.manifest, export.written.media_type)

    def head(self, tag: str = "cache") -> str | None:
        """The digest to which a tag leads, None if it answers 404."""
        answer = self.ask("HEAD", f"/manifests/{tag}")
        assert answer.status in (200, 404), answer
        return answer.headers["Docker-Content-Digest"]


@dataclass(frozen=True)
class Running:
    """A running server, a builder, and commands beside it."""

    server: Server
    site: Site
    builder: Builder


@contextmanager
def running_in_folder(folder: Path, *flags: str) -> Iterator[Running]:
    with Server.running(folder, *flags) as server:
        yield Running(server, in_folder(server.data), Builder(server.host))


@contextmanager
def running_in_s3(folder: Path, seaweed: SeaweedFS, prefix: str, *flags: str) -> Iterator[Running]:
    with Server.on_s3(folder, seaweed, prefix, *flags, command=QUICK) as server:
        yield Running(server, in_s3(folder, seaweed, prefix), Builder(server.host))


async def age_batches(bucket: Bucket) -> None:
    """Let what is condemned have been so for days."""
    async for listed in bucket.list(Namespace().batches()):
        stored = await bucket.read(listed.key)
        assert stored is not None
        batch = read_batch(stored.data)
        assert batch.since is not None
        aged = msgspec.structs.replace(batch, since=batch.since - _DAYS)
        await bucket.put(listed.key, write_batch(aged), match=stored.match)
