"""What a request counts as, in labels: requests of one case are summed up together."""

from typing import Final

import msgspec

from cacheproxy.access.clients import UNKNOWN
from cacheproxy.api.call import Call, Found, Kind
from cacheproxy.api.entrance import CLIENT_GONE
from cacheproxy.exchanges import Exchange

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
_OTHER_METHOD: Final = "other"
"""Clients choose methods freely; a label must not."""

# A blob that is fetched in several ranges is one.
_FROM_THE_START: Final = "bytes=0-"

_LOOKS: Final = frozenset({"end-2", "end-3"})


class Case(msgspec.Struct, frozen=True, gc=False):
    """What a request counts as, whoever sent it.

    `kind`, `result` and `tier` are those of a look for a blob or manifest, and empty if it was
    none, as it was not allowed or not right. `spared` tells whether the client need not push a blob
    now, and `shared` whether another one has done the work.
    """

    endpoint: str
    method: str
    status: int
    kind: str = ""
    result: str = ""
    tier: str = ""
    spared: bool = False
    shared: bool = False
    exchange: Exchange | None = None


def case_of(call: Call, status: int, exchange: Exchange | None) -> Case:
    endpoint, method, found = call.endpoint, call.request.method, call.found
    if found is not None and (status < 400 or status == CLIENT_GONE):
        kind, result, tier = found.kind, found.result, found.tier
        spared = endpoint == "end-2" and method == "HEAD"
        shared = status != 304 and _is_shared(call, found)
        return Case(endpoint, method, status, kind, result, tier, spared, shared, exchange)
    if endpoint in _LOOKS and (status == 404 or status >= 500):
        kind = call.blob_kind if endpoint == "end-2" else Kind.MANIFEST
        result = "miss" if status == 404 else "error"
        return Case(endpoint, method, status, kind, result, "none", exchange=exchange)
    method = method if method in _METHODS else _OTHER_METHOD
    return Case(endpoint, method, status, exchange=exchange)


def _is_shared(call: Call, found: Found) -> bool:
    if not found.pushers or call.client == UNKNOWN or found.pushers == (call.client,):
        return False
    if call.endpoint == "end-3":
        return call.request.method == "GET"  # a look is followed by a fetch, or by a push
    if call.request.method == "HEAD":
        return True
    return call.request.headers.get("Range", _FROM_THE_START).startswith(_FROM_THE_START)
