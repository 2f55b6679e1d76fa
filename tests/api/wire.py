"""Talking to a registry as a client does, in few words."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
UPLOADS = "/v2/ci/app/blobs/uploads/"


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def manifest(**fields: object) -> bytes:
    """An image manifest without layers, with these fields besides."""
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2}
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
    return json.dumps({**body, **fields}).encode()


async def push_blob(client: aiohttp.ClientSession, content: bytes, name: str = "ci/app") -> str:
    """Push by one POST; returns the digest."""
    path = f"/v2/{name}/blobs/uploads/?digest={digest(content)}"
    async with client.post(path, data=io.BytesIO(content)) as answer:
        assert answer.status == 201, await answer.text()
    return digest(content)


async def begin(client: aiohttp.ClientSession) -> str:
    """Begin an upload; returns its location."""
    async with client.post(UPLOADS) as answer:
        assert answer.status == 202
        return answer.headers["Location"]


async def push_manifest(
    client: aiohttp.ClientSession, reference: str, body: bytes, media_type: str = MANIFEST
) -> aiohttp.ClientResponse:
    """Push and return the answer, read whole."""
    headers = {"Content-Type": media_type}
    path = f"/v2/ci/app/manifests/{reference}"
    async with client.put(path, data=io.BytesIO(body), headers=headers) as answer:
        await answer.read()
        return answer


def next_page(answer: aiohttp.ClientResponse) -> str:
    """The path that the Link header of a list leads to, or nothing on the last page."""
    return str(URL(answer.links["next"]["url"]).relative()) if answer.links else ""


BLOB = f"/v2/ci/app/blobs/{digest(b'x')}"

# The path of each noun, and the methods that the spec has for it.
METHODS = {
    "/v2/": {"GET", "HEAD"},
    "/v2/_catalog": {"GET"},
    BLOB: {"GET", "HEAD", "DELETE"},
    UPLOADS: {"POST"},
    f"{UPLOADS}session": {"GET", "PATCH", "PUT", "DELETE"},
    "/v2/ci/app/manifests/tag": {"GET", "HEAD", "PUT", "DELETE"},
    "/v2/ci/app/tags/list": {"GET"},
    f"/v2/ci/app/referrers/{digest(b'x')}": {"GET"},
    "/token": {"GET", "POST"},
}


@asynccontextmanager
async def raw(client: aiohttp.ClientSession) -> AsyncIterator[Raw]:
    """A bare connection to the server of `client`."""
    base = client._base_url  # the session knows no other way to tell
    assert base is not None
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


class Raw:
    """A connection on which every byte is chosen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, text: str | bytes) -> None:
        self._writer.write(text.encode() if isinstance(text, str) else text)
        await self._writer.drain()

    async def answer(self) -> tuple[int, str]:
        """The status and the whole head of the next answer."""
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        return int(head.split()[1]), head

    async def ends(self) -> bytes:
        """What still comes until the server closes the connection."""
        async with asyncio.timeout(60):
            return await self.reader.read()

    async def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        try:
            async with asyncio.timeout(seconds):
                return not await self.reader.read(1)
        except TimeoutError:
            return True
