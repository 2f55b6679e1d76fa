"""Registries over one prefix of a bucket behind a proxy, and what their clients do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from cacheproxy.oci.digest import Digest
from cacheproxy.storage.layout import Namespace
from cacheproxy.storage.s3.bucket import S3Bucket
from tests.api.wire import MANIFEST, digest, manifest
from tests.real.seaweed import SeaweedFS
from tests.s3.calls import Call
from tests.s3.proxy import S3Proxy
from tests.server import serving
from tests.storage.s3_buckets import WEED, hasty, opened

Client = aiohttp.ClientSession

UPLOADS = "/v2/ci/app/blobs/uploads/"
HANGING_SECONDS = 60


class Retry(Exception):
    """The client got one clear error that says that it may try again, or a broken body."""


class Replica:
    """A running registry: a `client` of it, its `bucket`, and the folder of its tier."""

    def __init__(self, client: Client, bucket: S3Bucket, tier: Path) -> None:
        self.client = client
        self.bucket = bucket
        self.tier = tier

    @contextmanager
    def hasty(self, *, read: float, write: float) -> Iterator[None]:
        """It waits for S3 no longer than these seconds: for what S3 does not answer."""
        with hasty(self.bucket, read=read, write=write):
            yield

    @property
    def spooled(self) -> list[str]:
        """Files that are neither entries nor gone."""
        return [path.name for path in (self.tier / "spool").iterdir()]

    def check_entries(self) -> None:
        """The tier holds nothing but what is right."""
        for entry in (self.tier / "blobs").rglob("*/*/*"):
            if entry.is_file():
                assert digest(entry.read_bytes()).endswith(entry.name)

    def entry(self, content: bytes) -> Path:
        """Where the tier has a blob, if it has it."""
        return self.tier / "blobs" / Namespace().blob(Digest(digest(content)))


class Site:
    """A prefix of the bucket behind `proxy`, on which replicas can be started."""

    def __init__(self, proxy: S3Proxy, first: S3Bucket, folder: Path) -> None:
        """Use `opened`."""
        self.proxy = proxy
        self._first = first
        self._folder = folder
        self._prefix = first.options.prefix
        self._numbers = count()

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, seaweed: SeaweedFS, proxy: S3Proxy, folder: Path, **options: Any
    ) -> AsyncIterator[Site]:
        async with opened(seaweed, endpoint_url=proxy.url, **options) as bucket:
            yield cls(proxy, bucket, folder)

    def another(self) -> Site:
        """One that holds nothing, by the same connections."""
        site = Site(self.proxy, self._first, self._folder)
        site._numbers = self._numbers
        site._prefix = f"{self._first.options.prefix}{next(self._numbers)}/"
        return site

    def twin(self, other: Site) -> Site:
        """What `other` holds, by the connections of this one."""
        site = self.another()
        site._prefix = other._prefix
        return site

    def bucket(self) -> S3Bucket:
        """The bucket as one more process has it."""
        requests = self._first._requests
        mine = replace(requests, options=replace(requests.options, prefix=self._prefix))
        public = replace(self._first._public, options=mine.options)
        return S3Bucket(mine, public, WEED)

    @asynccontextmanager
    async def replica(self, **settings: Any) -> AsyncIterator[Replica]:
        """A registry with an empty tier, which has done the first of what it does from time to
        time, so that all calls from now on are its clients'."""
        folder = self._folder / f"replica-{next(self._numbers)}"
        bucket = self.bucket()
        began = len(self.proxy.calls)
        try:
            async with serving(folder, bucket=bucket, **settings) as client:
                await until(lambda: _settled(self.proxy.calls[began:]))
                yield Replica(client, bucket, folder / "cacheproxy")
        finally:
            await bucket.close()
            # That of the registry has ended with it.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


def _settled(calls: list[Call]) -> bool:
    """Whether the chores that begin with a registry are over: polls and a sweep.

    One that fails is tried again much later, so until then S3 must be there and waited for.
    """
    over = [(call.operation, call.kind) for call in calls if call.over]
    swept = any(operation == "ListMultipartUploads" for operation, _ in over)
    return swept and over.count(("ListObjectsV2", "deleted")) >= 2


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it is so, however busy the machine is; fails if it surely never will be."""
    deadline = time.monotonic() + HANGING_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it does not come to be so"
        await asyncio.sleep(0.005)


@lru_cache(maxsize=8)
def noise(size: int, seed: bytes = b"seed") -> bytes:
    """Bytes of which no two parts are the same."""
    return hashlib.shake_128(seed).digest(size)


async def told(answer: aiohttp.ClientResponse, *statuses: int) -> bytes:
    """The body of an answer with one of these statuses. Raises Retry."""
    try:
        body = await answer.read()
    except aiohttp.ClientPayloadError:
        assert answer.status in statuses
        raise Retry from None
    if answer.status == 503:
        assert int(answer.headers["Retry-After"]) > 0
        if answer.method != "HEAD":
            [error] = json.loads(body)["errors"]
            assert error["code"] == "UNAVAILABLE"
        raise Retry
    assert answer.status in statuses, (answer.status, body[:500])
    return body


async def begin(client: Client) -> str:
    """A new upload's location."""
    async with client.post(UPLOADS) as answer:
        await told(answer, 202)
        return answer.headers["Location"]


async def put(client: Client, location: str, whole: bytes, rest: bytes | None = None) -> None:
    """Complete an upload to `whole`, with all of it or with the `rest`."""
    body = whole if rest is None else rest
    async with client.put(f"{location}?digest={digest(whole)}", data=pieces(body)) as answer:
        await told(answer, 201)


async def patch(client: Client, location: str, chunk: bytes) -> str:
    """Send a chunk; the location for the next."""
    async with client.patch(location, data=pieces(chunk)) as answer:
        await told(answer, 202)
        return answer.headers["Location"]


async def push(client: Client, content: bytes) -> None:
    """As BuildKit does."""
    await put(client, await begin(client), content)


async def pull(client: Client, content: bytes) -> None:
    """GET a blob that is to be this; what comes is this, or raises Retry."""
    async with client.get(f"/v2/ci/app/blobs/{digest(content)}") as answer:
        assert await told(answer, 200) == content


async def look(client: Client, content: bytes) -> bool:
    """HEAD a blob, whose size is right if it is there."""
    async with client.head(f"/v2/ci/app/blobs/{digest(content)}") as answer:
        await told(answer, 200, 404)
        assert answer.status == 404 or answer.content_length == len(content)
        return answer.status == 200


def image(*layers: bytes, number: int = 0) -> bytes:
    """A manifest of these layers; those with another number differ."""
    media_type = "application/vnd.oci.image.layer.v1.tar"
    described = [
        {"mediaType": media_type, "digest": digest(layer), "size": len(layer)} for layer in layers
    ]
    return manifest(layers=described, annotations={"number": str(number)})


async def tag(client: Client, name: str, body: bytes) -> None:
    """PUT a manifest by tag."""
    headers = {"Content-Type": MANIFEST}
    async with client.put(f"/v2/ci/app/manifests/{name}", data=body, headers=headers) as answer:
        await told(answer, 201)


async def get(client: Client, reference: str) -> bytes | None:
    """GET a manifest."""
    async with client.get(f"/v2/ci/app/manifests/{reference}") as answer:
        body = await told(answer, 200, 404)
        return body if answer.status == 200 else None


async def listed(client: Client, path: str, name: str) -> list[str]:
    """GET a list."""
    async with client.get(path) as answer:
        found: list[str] = json.loads(await told(answer, 200))[name]
        return found


async def delete(client: Client, path: str) -> None:
    """DELETE what may already be gone."""
    async with client.delete(f"/v2/ci/app/{path}") as answer:
        await told(answer, 202, 404)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """A body that is sent in pieces, so that it does not hold up the loop of the test."""
    for start in range(0, len(content), 1 << 18):
        yield content[start : start + (1 << 18)]
