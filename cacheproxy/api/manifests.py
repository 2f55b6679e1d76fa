"""Manifests on the wire: end-3, end-7, end-9."""

from aiohttp import web

from cacheproxy.api.call import Call, Found, Kind
from cacheproxy.api.streaming import Intake
from cacheproxy.errors import BlobTooLarge, ManifestTooLarge
from cacheproxy.oci.reference import Tag, parse_reference
from cacheproxy.registry.manifest_store import StoredManifest
from cacheproxy.registry.manifests import Manifests
from cacheproxy.registry.registries import Registries
from cacheproxy.registry.sources import Pusher


class ManifestsApi:
    """`tier` is what the bucket is called among those that something is found in."""

    def __init__(
        self, registries: Registries, tier: str, manifest_bytes: int, intake: Intake
    ) -> None:
        self._registries = registries
        self._tier = tier
        self._manifest_bytes = manifest_bytes
        self._intake = intake

    async def head(self, call: Call) -> web.StreamResponse:
        found = await self._get(call)
        headers = {**_headers(found), "Content-Length": str(len(found.data))}
        return web.Response(headers=headers)

    async def get(self, call: Call) -> web.StreamResponse:
        found = await self._get(call)
        headers = _headers(found)
        if headers["ETag"] in call.request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(headers=headers, body=found.data)

    async def put(self, call: Call) -> web.StreamResponse:
        reference = parse_reference(call.target)
        tags = [Tag.parse(each) for each in call.all("tag")]
        data = await self._read(call)
        content_type = call.request.headers.get("Content-Type")
        pusher = Pusher(call.pusher, call.identity.user)
        pushed = await self._manifests(call).push(
            call.repository, reference, tags, data, content_type, pusher
        )
        call.known_export = pushed.known_export
        response = web.Response(
            status=201,
            headers={
                "Location": f"/v2/{call.repository}/manifests/{pushed.digest}",
                "Docker-Content-Digest": pushed.digest,
            },
        )
        if pushed.subject is not None:
            response.headers["OCI-Subject"] = pushed.subject
        for tag in tags:
            response.headers.add("OCI-Tag", tag)
        return response

    async def delete(self, call: Call) -> web.StreamResponse:
        await self._manifests(call).delete(call.repository, parse_reference(call.target))
        return web.Response(status=202)

    async def _get(self, call: Call) -> StoredManifest:
        reference = parse_reference(call.target)
        remembered = self._manifests(call).remembers(call.repository, reference)
        found = await self._manifests(call).get(call.repository, reference)
        kind = Kind.CACHE_MANIFEST if found.is_cache else Kind.MANIFEST
        tier = "memory" if remembered else self._tier
        call.found = Found(kind, "hit", tier, len(found.data), found.pushers)
        return found

    def _manifests(self, call: Call) -> Manifests:
        return self._registries.of(call.repository).manifests

    async def _read(self, call: Call) -> bytes:
        try:
            return await self._intake.body(call, self._manifest_bytes).read()
        except BlobTooLarge as error:
            raise ManifestTooLarge(error.detail) from None


def _headers(manifest: StoredManifest) -> dict[str, str]:
    return {
        "Content-Type": manifest.media_type,
        "Docker-Content-Digest": manifest.digest,
        "ETag": f'"{manifest.digest}"',
    }
