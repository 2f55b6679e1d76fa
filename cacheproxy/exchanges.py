"""Which requests are imports and exports of caches, as BuildKit makes them.

An import asks for the tag, then fetches the manifest. An export asks for the tag too, tells by
Accept that it has a manifest for it, and pushes that unless the tag leads there already: then what
is unchanged is seen by nothing more coming.
"""

import time
from collections.abc import Callable
from enum import Enum
from typing import Final

from cacheproxy.api.call import Call, Kind
from cacheproxy.buildkit.accept import is_of_pusher

_PUSH_SECONDS: Final = 30.0
"""What has not been pushed so long after the look at its tag is not going to be."""

_LOOKS: Final = 10_000

_Look = tuple[str, str, str]
"""Client, repository and tag."""


class Exchange(Enum):
    """A cache that changed hands, or did not."""

    FOUND = "found"
    NOT_FOUND = "not_found"
    STORED = "stored"
    UNCHANGED = "unchanged"


class Exchanges:
    """`clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: dict[_Look, float] = {}
        """Looks of those who export, and when it is known that they do not push; oldest first."""

    def ended(self, call: Call, status: int) -> Exchange | None:
        """What a request was that ended with this status."""
        if call.endpoint == "end-7" and call.known_export is not None:
            self._looks.pop(_look(call), None)
            return Exchange.UNCHANGED if call.known_export else Exchange.STORED
        if call.endpoint != "end-3":
            return None
        if call.found is None:
            absent = status == 404 and ":" not in call.target and not _is_of_pusher(call)
            return Exchange.NOT_FOUND if absent else None
        if call.found.kind is not Kind.CACHE_MANIFEST:
            return None
        if call.request.method == "GET":
            return Exchange.FOUND if status < 400 else None
        return self._export(_look(call)) if _is_of_pusher(call) else None

    def settled(self) -> list[str]:
        """The clients of exports that are known by now to have changed nothing."""
        now, settled = self._clock(), []
        while self._looks:
            look, end = next(iter(self._looks.items()))
            if end > now and len(self._looks) <= _LOOKS:
                break
            del self._looks[look]
            settled.append(look[0])
        return settled

    def _export(self, look: _Look) -> Exchange | None:
        """Nothing was pushed since the look before, if there was one."""
        known = self._looks.pop(look, None)
        self._looks[look] = self._clock() + _PUSH_SECONDS
        return None if known is None else Exchange.UNCHANGED


def _is_of_pusher(call: Call) -> bool:
    return is_of_pusher(call.request.headers.get("Accept", ""))


def _look(call: Call) -> _Look:
    return call.client, call.repository, call.target
