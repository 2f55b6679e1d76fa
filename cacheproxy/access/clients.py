"""Which client is asking: a name that people know their runners by, for metrics and logs.

A name decides nothing, so it is believed where a permission would not be: what a client may do is
for its credentials to say.
"""

import fcntl
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from cacheproxy.access.identity import Identity

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNKNOWN: Final = "unknown"
"""A client of which nothing is known but an address."""
OTHER: Final = "other"
"""All clients for whose names there was no room."""

_LONGEST: Final = 64
_ADDRESSES: Final = 10_000


class ClientNames:
    """The first `limit` names that come; there is no room for others, for each costs memory here
    and in whatever collects metrics.

    Processes that are to have the same ones share the file at `path`, a name to a line.
    """

    def __init__(self, limit: int, path: str | None = None) -> None:
        self._limit = limit
        self._path = path
        self._names: set[str] = set()

    def of(self, name: str) -> str:
        """The name, if it has room."""
        if name not in self._names and not self._enter(name):
            return OTHER
        return name

    def _enter(self, name: str) -> bool:
        if len(self._names) >= self._limit or len(name) > _LONGEST or not name.isprintable():
            return False
        if self._path is None:
            self._names.add(name)
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._names = set(os.pread(fd, os.fstat(fd).st_size, 0).decode().splitlines())
            if name not in self._names and len(self._names) < self._limit:
                os.write(fd, f"{name}\n".encode())
                self._names.add(name)
        finally:
            os.close(fd)
        return name in self._names


class Clients:
    """Names clients by user, else by a header, else by the network that they are in.

    Proxies in the `trusted` networks are believed where they got a request from.
    """

    def __init__(
        self,
        names: ClientNames,
        header: str = "",
        networks: Mapping[Network, str] | None = None,
        trusted: Sequence[Network] = (),
    ) -> None:
        self._names = names
        self._header = header
        # The smallest network that an address is in says most.
        found = sorted((networks or {}).items(), key=lambda each: -each[0].prefixlen)
        self._networks = tuple(found)
        self._trusted = tuple(trusted)
        self._parse = lru_cache(_ADDRESSES)(_parse)
        self._named = lru_cache(_ADDRESSES)(self._find)

    def name(self, identity: Identity, headers: Mapping[str, str], address: str) -> str:
        """The name of who sent a request with these headers, from this address."""
        told = identity.user or (headers.get(self._header) if self._header else None)
        told = told or (self._named(address) if self._networks else None)
        return self._names.of(told) if told and told != OTHER else UNKNOWN

    def address(self, forwarded: Sequence[str], peer: str) -> str:
        """Where a request comes from, that `peer` has sent with these X-Forwarded-For headers."""
        if not self._trusted or not forwarded:
            return peer
        address = peer
        for hop in reversed([hop.strip() for header in forwarded for hop in header.split(",")]):
            if not self._is_trusted(address) or self._parse(hop) is None:
                break
            address = str(self._parse(hop))
        return address

    def _is_trusted(self, text: str) -> bool:
        address = self._parse(text)
        return address is not None and any(address in network for network in self._trusted)

    def _find(self, text: str) -> str | None:
        address = self._parse(text)
        if address is None:
            return None
        return next((name for network, name in self._networks if address in network), None)


def _parse(text: str) -> Address | None:
    """An address, which some proxies send with a port, or in brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
