"""One request, understood: what every handler is given."""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from cacheproxy.access.clients import UNKNOWN
from cacheproxy.access.identity import NOBODY, Identity
from cacheproxy.buildkit.accept import is_for_config
from cacheproxy.errors import RequestInvalid
from cacheproxy.oci.reference import Repository


class Kind(StrEnum):
    """What was asked for, for those who count it."""

    CACHE_MANIFEST = "cache_manifest"
    MANIFEST = "manifest"
    CONFIG = "config"
    BLOB = "blob"


class Found(msgspec.Struct, frozen=True):
    """What a GET or HEAD found: how (`hit`, `fill` or `coalesced`), and in which tier.

    `size` is in bytes, whatever of it is sent; `pushers` are some of those whose work it is.
    """

    kind: Kind
    result: str
    tier: str
    size: int
    pushers: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Call:
    """A request with the parts of its path, and what is learned of it on the way.

    `target` is the last part: a digest, tag or session, as text that nobody has checked.
    `received` and `sent` count the bytes of bodies, `uploaded` those of a blob that is stored now,
    whatever requests brought them. `identity` is who sent it, once that is known,
    `client` that in a name for metrics, and `address` where it came from. `known_export` tells of a
    cache that was pushed to a tag whether the tag had it already.
    """

    request: web.BaseRequest
    endpoint: str
    name: Repository | None
    target: str
    address: str = ""
    identity: Identity = NOBODY
    client: str = UNKNOWN
    found: Found | None = None
    known_export: bool | None = None
    received: int = 0
    sent: int = 0
    uploaded: int = 0
    first_byte: float = 0.0
    _query: dict[str, list[str]] | None = field(default=None, repr=False)

    @property
    def pusher(self) -> str:
        """The client as who pushes something, if it has a name."""
        return "" if self.client == UNKNOWN else self.client

    @property
    def blob_kind(self) -> Kind:
        """What a blob is that is asked for, as far as the request tells."""
        return Kind.CONFIG if is_for_config(self.request.headers.get("Accept", "")) else Kind.BLOB

    @property
    def repository(self) -> Repository:
        assert self.name is not None, "the route has a repository"
        return self.name

    def all(self, parameter: str) -> list[str]:
        """Every value of a parameter of the query."""
        if self._query is None:
            _, _, query = self.request.raw_path.partition("?")
            try:
                self._query = parse_qs(query, keep_blank_values=True, max_num_fields=100)
            except ValueError as error:
                raise RequestInvalid("the query has too many parameters") from error
        return self._query.get(parameter, [])

    def one(self, parameter: str) -> str | None:
        """The first value of a parameter of the query."""
        values = self.all(parameter)
        return values[0] if values else None
