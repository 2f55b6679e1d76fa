"""What requests count as, and sums over those that count as the same.

To count a request in each of its series as it ends would cost as much as to look for a blob. So
they are summed up by what tells them apart, and the sums are counted now and then.
"""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from cacheproxy.access.clients import UNKNOWN
from cacheproxy.api.call import Call, Found, Kind
from cacheproxy.api.entrance import CLIENT_GONE, Report
from cacheproxy.exchanges import Exchange

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
# A blob that is fetched in several ranges is one.
_FROM_THE_START: Final = "bytes=0-"

_LOOKS: Final = frozenset({"end-2", "end-3"})


class Case(msgspec.Struct, frozen=True, gc=False):
    """What tells a request from others, in labels.

    `kind`, `result` and `tier` are those of a look for a blob or manifest, and empty if it was
    none, as it was not allowed or not right. `shared` tells whether the client was spared work by
    another one.
    """

    endpoint: str
    method: str
    status: int
    client: str
    kind: str = ""
    result: str = ""
    tier: str = ""
    shared: bool = False
    exchange: Exchange | None = None

    @property
    def found(self) -> bool:
        """Whether there was what was looked for."""
        return self.tier not in ("", "none")

    @property
    def avoids_upload(self) -> bool:
        """Whether a client was told that it need not push a blob."""
        return self.found and self.endpoint == "end-2" and self.method == "HEAD"


@dataclass(slots=True)
class Tally:
    """Requests of one case: `received` and `sent` in bytes, `size` that of all that they found,
    whatever of it was sent; what each took, in seconds."""

    requests: int = 0
    received: int = 0
    sent: int = 0
    size: int = 0
    seconds: list[float] = field(default_factory=list)
    first_byte: list[float] = field(default_factory=list)

    def add(self, report: Report) -> None:
        call = report.call
        self.requests += 1
        self.received += call.received
        self.sent += call.sent
        if call.found is not None:
            self.size += call.found.size
        self.seconds.append(report.seconds)
        self.first_byte.append(report.first_byte_seconds)


def case_of(call: Call, status: int, exchange: Exchange | None) -> Case:
    endpoint, method, client, found = call.endpoint, call.request.method, call.client, call.found
    if found is not None and (status < 400 or status == CLIENT_GONE):
        kind, result, tier = found.kind, found.result, found.tier
        shared = status != 304 and _is_shared(call, found)
        return Case(endpoint, method, status, client, kind, result, tier, shared, exchange)
    if method not in _METHODS:  # clients choose them freely; a label must not
        method = "other"
    if endpoint in _LOOKS and (status == 404 or status >= 500):
        result = "miss" if status == 404 else "error"
        kind = call.blob_kind if endpoint == "end-2" else Kind.MANIFEST
        return Case(endpoint, method, status, client, kind, result, "none", exchange=exchange)
    return Case(endpoint, method, status, client, exchange=exchange)


def _is_shared(call: Call, found: Found) -> bool:
    if call.client == UNKNOWN or found.pushers in ((), (call.client,)):
        return False
    if call.request.method == "HEAD":
        return call.endpoint == "end-2"  # a manifest is fetched after this, or pushed
    return call.request.headers.get("Range", _FROM_THE_START).startswith(_FROM_THE_START)
