"""Lists on the wire: tags (end-8), repositories (the catalog) and referrers (end-12)."""

import json
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from cacheproxy.access.control import Access
from cacheproxy.api.call import Call
from cacheproxy.errors import NameUnknown, RequestInvalid
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.manifest import OCI_INDEX
from cacheproxy.registry.registries import Registries

# Names per page when the client does not ask for fewer.
_PAGE: Final = 10_000

# Many clients read one page of referrers, and none above 4 MiB; some are left for the frame.
_REFERRERS_BYTES: Final = (4 << 20) - 1024


class ListingsApi:
    def __init__(self, registries: Registries, access: Access) -> None:
        self._registries = registries
        self._access = access

    async def tags(self, call: Call) -> web.StreamResponse:
        repository = call.repository
        registry = self._registries.of(repository)
        last = call.one("last") or ""
        names, headers = await _page(call, registry.tags.list(repository, last))
        if not names and not await registry.catalog.has(repository):
            raise NameUnknown(f"there is no repository {repository}")
        return _json({"name": repository, "tags": names}, headers)

    async def catalog(self, call: Call) -> web.StreamResponse:
        names, headers = await _page(call, self._visible(call))
        return _json({"repositories": names}, headers)

    async def _visible(self, call: Call) -> AsyncIterator[str]:
        async for name in self._registries.catalog(call.one("last") or ""):
            if self._access.visible(call.identity, name):
                yield name

    async def referrers(self, call: Call) -> web.StreamResponse:
        """An index of the referrers: never 404, and of exactly its media type, as clients ask."""
        subject = Digest.parse(call.target)
        wanted = call.one("artifactType")
        headers = {"Content-Type": OCI_INDEX}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        entries: list[bytes] = []
        size = 0
        last = call.one("last") or ""
        referrers = self._registries.of(call.repository).referrers
        async for descriptor in referrers.list(call.repository, subject, last):
            if wanted and descriptor.artifact_type != wanted:
                continue
            entry = msgspec.json.encode(descriptor)
            size += len(entry) + 1
            if entries and size > _REFERRERS_BYTES:
                headers["Link"] = _next(call, {"artifactType": wanted, "last": last})
                break
            entries.append(entry)
            last = descriptor.digest
        head = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":['.encode()
        return web.Response(headers=headers, body=head + b",".join(entries) + b"]}")


async def _page(call: Call, names: AsyncIterator[str]) -> tuple[list[str], dict[str, str]]:
    """Up to `n` names, and a Link to the next page if there are more."""
    limit = _limit(call.one("n"))
    page: list[str] = []
    if limit == 0:
        return page, {}
    async for name in names:
        if len(page) == limit:
            return page, {"Link": _next(call, {"n": str(limit), "last": page[-1]})}
        page.append(name)
    return page, {}


def _limit(text: str | None) -> int:
    if text is None:
        return _PAGE
    if not (text.isascii() and text.isdigit()):
        raise RequestInvalid(f"n is {text!r:.100}, not a number of names")
    return min(int(text[:10]), _PAGE)


def _next(call: Call, query: dict[str, str | None]) -> str:
    """The Link header to the same list with this query (RFC 5988, as the spec has it)."""
    path, _, _ = call.request.raw_path.partition("?")
    given = urlencode({name: value for name, value in query.items() if value})
    return f'<{path}?{given}>; rel="next"'


def _json(document: object, headers: dict[str, str]) -> web.Response:
    body = json.dumps(document).encode()
    return web.Response(headers={"Content-Type": "application/json", **headers}, body=body)
