"""Blobs on the wire: end-2, end-10."""

from functools import partial
from typing import Final

from aiohttp import web

from cacheproxy.api.call import Call, Found
from cacheproxy.api.streaming import send_file, send_ranges
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange, parse_ranges
from cacheproxy.registry.blobs import Blobs
from cacheproxy.registry.registries import Registries
from cacheproxy.storage.bucket import LocalFile, Origin

_ORIGINS: Final = {
    Origin.DISK: ("hit", "disk"),
    Origin.FILL: ("fill", "s3"),
    Origin.COALESCED: ("coalesced", "s3"),
    Origin.BUCKET: ("hit", "s3"),
}

# Up to this size one read and one write beat the setting up of a sendfile.
_INLINE_BYTES: Final = 64 * 1024


class BlobsApi:
    """`redirect_bytes` is the size from which on blobs are fetched elsewhere, 0 for never; `tier`
    is what the bucket is called among those that something is found in."""

    def __init__(
        self, registries: Registries, tier: str, idle_timeout: float, redirect_bytes: int
    ) -> None:
        self._registries = registries
        self._tier = tier
        self._idle_timeout = idle_timeout
        self._redirect_bytes = redirect_bytes

    async def head(self, call: Call) -> web.StreamResponse:
        digest = Digest.parse(call.target)
        headers = _headers(digest)
        headers["Content-Length"] = str(await self._size(call, digest))
        return web.Response(headers=headers)

    async def get(self, call: Call) -> web.StreamResponse:
        digest = Digest.parse(call.target)
        headers = _headers(digest)
        if _has_already(call, headers["ETag"]):
            await self._size(call, digest)
            return web.Response(status=304, headers=headers)
        if location := await self._elsewhere(call, digest):
            return web.Response(status=307, headers={"Location": location})
        if ranges := await self._ranges(call, digest, headers["ETag"]):
            size = await self._blobs(call).size(call.repository, digest)
            source = partial(self._open, call, digest)
            return await send_ranges(call, headers, source, size, ranges, self._idle_timeout)
        with await self._open(call, digest) as file:
            if file.size <= _INLINE_BYTES:
                return web.Response(headers=headers, body=await _whole(file))
            return await send_file(call, headers, file, self._idle_timeout)

    async def delete(self, call: Call) -> web.StreamResponse:
        await self._blobs(call).delete(call.repository, Digest.parse(call.target))
        return web.Response(status=202)

    async def _size(self, call: Call, digest: Digest) -> int:
        blob = await self._blobs(call).find(call.repository, digest)
        tier = "memory" if blob.remembered else self._tier
        call.found = Found(call.blob_kind, "hit", tier, blob.size, _pushers(blob.pusher))
        return blob.size

    async def _open(self, call: Call, digest: Digest, part: ByteRange | None = None) -> LocalFile:
        file = await self._blobs(call).open(call.repository, digest, part)
        result, tier = _ORIGINS[file.origin]
        call.found = Found(call.blob_kind, result, tier, file.size, _pushers(file.pusher))
        return file

    def _blobs(self, call: Call) -> Blobs:
        return self._registries.of(call.repository).blobs

    async def _elsewhere(self, call: Call, digest: Digest) -> str | None:
        """Where the client is to fetch the blob from, ranges of it too; None means from here."""
        if not self._redirect_bytes:
            return None
        if await self._size(call, digest) < self._redirect_bytes:
            return None
        return await self._blobs(call).url(call.repository, digest)

    async def _ranges(self, call: Call, digest: Digest, etag: str) -> list[ByteRange] | None:
        """The ranges asked for, None where the whole is to be sent."""
        asked = call.request.headers
        wanted = asked.get("Range")
        if not wanted or asked.get("If-Range", etag) != etag:
            return None
        return parse_ranges(wanted, await self._blobs(call).size(call.repository, digest))


def _pushers(pusher: str) -> tuple[str, ...]:
    return (pusher,) if pusher else ()


def _has_already(call: Call, etag: str) -> bool:
    none_match = call.request.headers.get("If-None-Match", "")
    return etag in none_match or none_match.strip() == "*"


async def _whole(file: LocalFile) -> bytes:
    """All of a small file, when all of it is there."""
    if file.size:
        await file.ready(file.size - 1)
    return file.read_at(0, file.size)


def _headers(digest: Digest) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000",
    }
