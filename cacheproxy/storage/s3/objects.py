"""What is done to one object of S3, each in one request where S3 allows."""

import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, unquote

from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import Match, Stored
from cacheproxy.storage.layout import FORMAT_KEY
from cacheproxy.storage.read_ahead import ReadAhead
from cacheproxy.storage.s3.background import Background
from cacheproxy.storage.s3.conditions import Conditions
from cacheproxy.storage.s3.options import S3Options
from cacheproxy.storage.s3.requests import META, Body, Reply, Request, S3Requests
from cacheproxy.storage.s3.stream import S3Stream

CONFLICTS: Final = frozenset({404, 412})
"""A condition did not hold: 404 where a version was to be there and nothing is."""

# Names the write that made an object, to know one's own when its answer was lost.
_WRITE: Final = "cacheproxy-write"

_PUSHER: Final = "pusher"

_LARGE: Final = 256 << 10


class S3Objects:
    """The objects below the prefix of a bucket, by their keys without it."""

    def __init__(self, requests: S3Requests, conditions: Conditions | None) -> None:
        """With `conditions` the bucket ignores them: they are checked and kept here."""
        self.requests = requests
        self._conditions = conditions
        self._ahead = ReadAhead()
        self.background = Background()

    @property
    def options(self) -> S3Options:
        return self.requests.options

    def name(self, key: str) -> str:
        return self.options.prefix + key

    async def look(self, key: str) -> Reply | None:
        request = Request(
            "HeadObject",
            {"Key": self.name(key)},
            self.options.read_seconds,
            expect=frozenset({200, 404}),
        )
        reply = await self.requests.send(request)
        return None if reply.status == 404 else reply

    async def version(self, key: str) -> str | None:
        found = await self.look(key)
        return None if found is None else _version(found)

    async def read(self, key: str, known: Stored | None) -> Stored | None:
        params = {"Key": self.name(key)}
        if known is not None:
            params["IfNoneMatch"] = known.version
        expect = frozenset({200, 304, 404})
        reply = await self.requests.send(
            Request("GetObject", params, self.options.read_seconds, expect)
        )
        if reply.status == 304:
            return known
        if reply.status == 404:
            return None
        return Stored(reply.data, _metadata(reply.headers), _version(reply))

    async def open(self, key: str, part: ByteRange | None) -> S3Stream | None:
        params = {"Key": self.name(key)}
        if part is not None:
            params["Range"] = f"bytes={part.start}-{part.last}"
        expect = frozenset({200, 206, 404})
        response = await self.requests.begin(
            Request("GetObject", params, self.options.read_seconds, expect)
        )
        if response.status == 404:
            return None
        return S3Stream.of(response, self._ahead, part, pusher_in(response.headers))

    async def put(
        self,
        key: str,
        data: bytes,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        digest = digest_of(data) if self.options.checksums != "off" else None
        body = _pieces(data)
        await self.write(key, body, len(data), digest, metadata or {}, match)

    async def write(
        self,
        key: str,
        body: Callable[[], Body],
        length: int,
        digest: Digest | None,
        metadata: Mapping[str, str],
        match: Match | None,
    ) -> None:
        """Make `length` bytes of `body` the object, in one request.

        Raises:
            Conflict: `match` does not hold.
        """
        write = new_write()
        async with self.condition(key, match) as sent:
            params = self._params(key, length, digest)
            params |= {"Metadata": {**metadata, **(write if match else {})}, **condition(sent)}
            request = Request(
                "PutObject",
                params,
                self.options.write_seconds,
                expect=frozenset({200}) | (CONFLICTS if sent else frozenset()),
                length=length,
                body=body,
            )
            reply = await self.requests.send(request)
            if reply.status != 200 and not (reply.before and await self.is_by(key, write)):
                raise Conflict(key)

    async def is_by(self, key: str, write: Mapping[str, str]) -> bool:
        """Whether the object was made by `write`.

        A write on condition whose answer was lost is sent again, and then fails by what it has
        itself written. Equal bytes would not tell: another writer may have written the same.
        """
        found = await self.look(key)
        return found is not None and found.headers.get(META + _WRITE) == write[_WRITE]

    async def delete(self, key: str, match: Match | None) -> None:
        """A condition is looked at first too: not every S3 that keeps it on writes does so here."""
        async with self.condition(key, match) as sent:
            if sent is not None and await self.version(key) != sent.version:
                raise Conflict(key)
            request = Request(
                "DeleteObject",
                {"Key": self.name(key), **condition(sent)},
                self.options.write_seconds,
                expect=frozenset({200, 204, 404}) | (CONFLICTS if sent else frozenset()),
            )
            reply = await self.requests.send(request)
            # Refused at a second attempt and gone: the first one did it.
            if reply.status == 412 and not (reply.before and await self.look(key) is None):
                raise Conflict(key)

    async def deletion(self, key: str, seconds: int) -> Callable[[], Awaitable[None]]:
        expect = frozenset({200, 204, 404})
        request = Request("DeleteObject", {"Key": self.name(key)}, seconds, expect)
        signed = await self.requests.presign(request, seconds)

        async def send() -> None:
            await self.requests.send_signed(request, signed)

        return send

    async def now(self) -> float:
        """As the answer about any object tells."""
        request = Request(
            "HeadObject",
            {"Key": self.name(FORMAT_KEY)},
            self.options.read_seconds,
            expect=frozenset({200, 404}),
        )
        reply = await self.requests.send(request)
        try:
            return parsedate_to_datetime(reply.headers["Date"]).timestamp()
        except (KeyError, ValueError) as error:
            raise Unavailable("the bucket does not tell the time") from error

    @asynccontextmanager
    async def condition(self, key: str, match: Match | None) -> AsyncIterator[Match | None]:
        """The condition to send; one that the bucket would ignore is checked and kept here."""
        if match is None or self._conditions is None:
            yield match
            return
        async with self._conditions.alone(key):
            if await self.version(key) != match.version:
                raise Conflict(key)
            yield None

    def _params(self, key: str, length: int, digest: Digest | None) -> dict[str, Any]:
        params = {"Key": self.name(key), "ContentLength": length}
        return params | self.options.object_params() | _checksum(digest, self.options)


def new_write() -> dict[str, str]:
    """Metadata that no other write has."""
    return {_WRITE: secrets.token_hex(8)}


def pushed_by(pusher: str) -> dict[str, str]:
    """Metadata that tells who uploaded an object: in ASCII, as nothing else is sure to pass."""
    return {_PUSHER: quote(pusher)} if pusher else {}


def pusher_in(headers: Mapping[str, str]) -> str:
    """Who uploaded an object, if its headers tell."""
    return unquote(headers.get(META + _PUSHER, ""))


def condition(match: Match | None) -> dict[str, str]:
    if match is None:
        return {}
    return {"IfNoneMatch": "*"} if match.version is None else {"IfMatch": match.version}


def _checksum(digest: Digest | None, options: S3Options) -> dict[str, str]:
    if digest is None or digest.algorithm != "sha256" or options.checksums == "off":
        return {}
    return {"ChecksumSHA256": base64.b64encode(bytes.fromhex(digest.hex)).decode()}


def _version(reply: Reply) -> str:
    version = reply.headers.get("ETag")
    if version is None:
        raise Unavailable("the bucket gives its objects no ETag")
    return version


def _metadata(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in headers.items()}
    ours = {name[len(META) :]: found[name] for name in found if name.startswith(META)}
    ours.pop(_WRITE, None)
    return ours


def _pieces(data: bytes) -> Callable[[], Body]:
    """Bytes to send; in pieces where sending all at once would hold up the others."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), _LARGE):
            yield data[start : start + _LARGE]

    return pieces if len(data) > _LARGE else lambda: data
