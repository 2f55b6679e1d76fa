"""Blobs on the wire: end-2, end-10."""

from typing import Final

from aiohttp import web

from cacheproxy.api.call import Call
from cacheproxy.api.streaming import send_file, send_ranges
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange, parse_ranges
from cacheproxy.registry.blobs import Blobs
from cacheproxy.storage.bucket import LocalFile

# Up to this size one read and one write beat the setting up of a sendfile.
_INLINE_BYTES: Final = 64 * 1024


class BlobsApi:
    def __init__(self, blobs: Blobs, idle_timeout: float) -> None:
        self._blobs = blobs
        self._idle_timeout = idle_timeout

    async def head(self, call: Call) -> web.StreamResponse:
        digest = Digest.parse(call.target)
        size = await self._blobs.size(call.repository, digest)
        return web.Response(headers={**_headers(digest), "Content-Length": str(size)})

    async def get(self, call: Call) -> web.StreamResponse:
        digest = Digest.parse(call.target)
        with await self._blobs.open(call.repository, digest) as file:
            return await self._send(call, digest, file)

    async def delete(self, call: Call) -> web.StreamResponse:
        await self._blobs.delete(call.repository, Digest.parse(call.target))
        return web.Response(status=202)

    async def _send(self, call: Call, digest: Digest, file: LocalFile) -> web.StreamResponse:
        headers = _headers(digest)
        asked = call.request.headers
        none_match = asked.get("If-None-Match", "")
        if headers["ETag"] in none_match or none_match.strip() == "*":
            return web.Response(status=304, headers=headers)
        wanted = asked.get("Range")
        if wanted and asked.get("If-Range", headers["ETag"]) == headers["ETag"]:
            ranges = parse_ranges(wanted, file.size)
            if ranges is not None:
                return await send_ranges(call, headers, file, ranges, self._idle_timeout)
        if file.size <= _INLINE_BYTES:
            return web.Response(headers=headers, body=file.read_at(0, file.size))
        whole = ByteRange(0, file.size)
        return await send_file(call, 200, headers, file, whole, self._idle_timeout)


def _headers(digest: Digest) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000",
    }
