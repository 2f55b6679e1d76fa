"""Uploads on the wire: end-4a, end-4b, end-5, end-6, end-11, end-13, end-14."""

from aiohttp import web

from cacheproxy.access.control import Access
from cacheproxy.access.policy import Action
from cacheproxy.api.call import Call
from cacheproxy.api.streaming import Intake, RequestBody
from cacheproxy.errors import Denied, DigestInvalid, Unauthorized
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.ranges import ByteRange, parse_chunk_range
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.registries import Registries
from cacheproxy.registry.uploads import Uploads


class UploadsApi:
    def __init__(
        self, registries: Registries, access: Access, blob_bytes: int, intake: Intake
    ) -> None:
        self._registries = registries
        self._access = access
        self._blob_bytes = blob_bytes
        self._intake = intake

    async def begin(self, call: Call) -> web.StreamResponse:
        """Mount a blob, take a whole one, or begin a session; a failed mount begins one too."""
        if mount := call.one("mount"):
            call.endpoint = "end-11"
            digest = Digest.parse(mount)
            if await self._mount(call, digest):
                return _created(call, digest)
        elif single := call.one("digest"):
            call.endpoint = "end-4b"
            digest = Digest.parse(single)
            blobs, body = self._registries.of(call.repository).blobs, self._body(call)
            call.uploaded = await blobs.push(call.repository, digest, body, call.pusher)
            return _created(call, digest)
        Hasher(call.one("digest-algorithm") or "sha256")  # says at once what is not supported
        return _accepted(call, self._uploads(call).begin(call.repository), 0)

    async def append(self, call: Call) -> web.StreamResponse:
        size = await self._uploads(call).append(
            call.repository, call.target, self._body(call), _chunk(call)
        )
        return _accepted(call, Uploads.chunked(call.target), size)

    async def finish(self, call: Call) -> web.StreamResponse:
        text = call.one("digest")
        if text is None:
            raise DigestInvalid("the digest parameter is missing")
        digest = Digest.parse(text)
        call.uploaded = await self._uploads(call).finish(
            call.repository, call.target, digest, self._body(call), _chunk(call), call.pusher
        )
        return _created(call, digest)

    async def status(self, call: Call) -> web.StreamResponse:
        size = await self._uploads(call).offset(call.repository, call.target)
        return web.Response(status=204, headers=_session(call, call.target, size))

    async def cancel(self, call: Call) -> web.StreamResponse:
        await self._uploads(call).cancel(call.repository, call.target)
        return web.Response(status=204)

    async def _mount(self, call: Call, digest: Digest) -> bool:
        """Where the source may not be pulled from, or shares nothing, there is nothing to mount, as
        where it is absent: the client uploads. BuildKit would end its build at a refusal."""
        text = call.one("from")
        source = Repository.parse(text) if text else None
        registry = self._registries.of(call.repository)
        if source is not None:
            try:
                self._access.authorize(call.identity, Action.PULL, source)
            except (Denied, Unauthorized):
                return False
            if self._registries.of(source) is not registry:
                return False
        return await registry.blobs.mount(call.repository, digest, source)

    def _uploads(self, call: Call) -> Uploads:
        return self._registries.of(call.repository).uploads

    def _body(self, call: Call) -> RequestBody:
        return self._intake.body(call, self._blob_bytes)


def _chunk(call: Call) -> ByteRange | None:
    header = call.request.headers.get("Content-Range")
    return parse_chunk_range(header) if header else None


def _session(call: Call, session: str, size: int) -> dict[str, str]:
    """Where the session goes on: relative and without escapes, since clients decode the path."""
    return {
        "Location": f"/v2/{call.repository}/blobs/uploads/{session}",
        "Range": f"0-{max(0, size - 1)}",
        "Docker-Upload-UUID": session,
    }


def _accepted(call: Call, session: str, size: int) -> web.Response:
    return web.Response(status=202, headers=_session(call, session, size))


def _created(call: Call, digest: Digest) -> web.Response:
    return web.Response(
        status=201,
        headers={
            "Location": f"/v2/{call.repository}/blobs/{digest}",
            "Docker-Content-Digest": digest,
        },
    )
