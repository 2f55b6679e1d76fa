"""Requests to S3: signed, sent, timed, tried again, and their failures in our words.

Requests for one object are sent by a session of our own, which costs a fraction of what
aiobotocore's way takes, and streams; what answers in XML goes through aiobotocore.
"""

import time
from asyncio import Timeout, timeout
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import aiohttp
from botocore import xform_name
from botocore.exceptions import ClientError
from yarl import URL

from cacheproxy.errors import Unavailable
from cacheproxy.storage.bucket import Observe
from cacheproxy.storage.s3.answers import (
    FAILURES,
    NO_KEY,
    Refused,
    cause,
    code_in,
    failure,
    keyless,
)
from cacheproxy.storage.s3.lanes import Lanes
from cacheproxy.storage.s3.options import S3Options
from cacheproxy.storage.s3.parts import MIB
from cacheproxy.storage.s3.retry import Attempt, Passing, persist
from cacheproxy.storage.s3.signing import Signer, Wanted

T = TypeVar("T")

Body = bytes | AsyncIterable[bytes]

_METHODS: Final = {
    "HeadObject": "HEAD",
    "GetObject": "GET",
    "PutObject": "PUT",
    "UploadPart": "PUT",
    "DeleteObject": "DELETE",
}
_HEADERS: Final = {
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ContentLength": "Content-Length",
    "IfMatch": "If-Match",
    "IfNoneMatch": "If-None-Match",
    "Range": "Range",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "StorageClass": "x-amz-storage-class",
}
META: Final = "x-amz-meta-"

# S3 takes a signature for as long as it would take one in a header, should a clock be wrong.
_SIGNED_SECONDS: Final = 900

# Slower than this a transfer has failed; it bounds what a stalled one can take.
_BYTES_PER_SECOND: Final = MIB


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one object, with botocore's names, to be answered in `seconds`.

    `length` bytes go with it. Statuses in `expect` are answers, all others raise.
    """

    operation: str
    params: Mapping[str, Any]
    seconds: float
    expect: frozenset[int] = frozenset({200, 204})
    length: int = 0
    body: Callable[[], Body] | None = None

    def headers(self) -> dict[str, str]:
        found = {_HEADERS[name]: str(self.params[name]) for name in _HEADERS.keys() & self.params}
        metadata: Mapping[str, str] = self.params.get("Metadata", {})
        return found | {META + name: value for name, value in metadata.items()}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with its whole body, after `before` attempts that may have succeeded unseen."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    before: int


@dataclass(frozen=True, slots=True)
class Called:
    """What aiobotocore found, after `before` attempts that may have succeeded unseen."""

    status: int
    found: Mapping[str, Any]
    before: int


@dataclass(slots=True)
class _Sent:
    """A request, so far."""

    status: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class S3Requests:
    """Sends requests to the bucket of `options`. Raises Unavailable and StorageFull only."""

    options: S3Options
    client: Any
    signer: Signer
    session: aiohttp.ClientSession
    proxy_headers: Mapping[str, str]
    observe: Observe | None = None
    lanes: Lanes = field(default_factory=Lanes)

    async def send(self, request: Request) -> Reply:
        async def whole(response: aiohttp.ClientResponse, attempt: Attempt) -> Reply:
            data = await response.read()
            return Reply(response.status, response.headers, data, attempt.before)

        if request.length < MIB:
            return await self._persist(request, whole)
        async with self.lanes.lane(request.seconds) as left:
            return await self._persist(replace(request, seconds=left), whole)

    async def begin(self, request: Request) -> aiohttp.ClientResponse:
        """The answer at its first byte; the caller closes it."""

        async def itself(response: aiohttp.ClientResponse, _: Attempt) -> aiohttp.ClientResponse:
            return response

        return await self._persist(request, itself)

    async def call(
        self,
        operation: str,
        params: Mapping[str, Any],
        seconds: float,
        *,
        length: int = 0,
        expect: frozenset[int] = frozenset(),
    ) -> Called:
        """Have aiobotocore ask; time for `length` bytes is given besides `seconds`."""

        async def once(attempt: Attempt) -> Called:
            with self._attempt(operation) as sent:
                async with timeout(attempt.seconds + length / _BYTES_PER_SECOND):
                    found = await self._ask(operation, params, sent, expect)
            return Called(sent.status, found, attempt.before)

        return await persist(once, seconds)

    async def _ask(
        self, operation: str, params: Mapping[str, Any], sent: _Sent, expect: frozenset[int]
    ) -> Mapping[str, Any]:
        method = getattr(self.client, xform_name(operation))
        try:
            found: Mapping[str, Any] = await method(Bucket=self.options.bucket, **params)
        except (ClientError, RuntimeError) as error:
            if not isinstance(error, ClientError) or error.operation_name != operation:
                raise keyless(error) from error  # it is STS that has refused
            refused = Refused.told(operation, error)
            sent.status = refused.status
            if refused.is_one_of(expect):
                answer: Mapping[str, Any] = error.response
                return answer
            raise refused from error
        sent.status = found["ResponseMetadata"]["HTTPStatusCode"]
        return found

    async def _persist(
        self, request: Request, take: Callable[[aiohttp.ClientResponse, Attempt], Awaitable[T]]
    ) -> T:
        async def once(attempt: Attempt) -> T:
            limit = attempt.seconds + request.length / _BYTES_PER_SECOND
            with self._attempt(request.operation, request.length) as sent:
                async with timeout(limit) as running:
                    signed = await self._signed(request, _SIGNED_SECONDS)
                    response = await self._send(request, signed)
                    sent.status = response.status
                    if response.method != "HEAD":
                        sent.received = response.content_length or 0
                    _extend(running, response)
                    try:
                        await _expected(request, response)
                        return await take(response, attempt)
                    except BaseException:
                        response.close()
                        raise

        return await persist(once, request.seconds)

    async def send_signed(self, request: Request, signed: str) -> None:
        """Make a request that was presigned, once. Raises Unavailable: it may have been done."""
        try:
            with self._attempt(request.operation) as sent:
                async with timeout(request.seconds):
                    async with await self._send(request, signed) as response:
                        sent.status = response.status
                        await _expected(request, response)
        except Passing as failure:
            raise Unavailable(str(failure)) from failure

    async def _send(self, request: Request, signed: str) -> aiohttp.ClientResponse:
        return await self.session.request(
            _METHODS[request.operation],
            URL(signed, encoded=True),
            headers=request.headers(),
            data=request.body() if request.body else None,
            allow_redirects=False,
            proxy_headers=self.proxy_headers,
        )

    async def presign(self, request: Request, seconds: int) -> str:
        """The address at which the request can be made for so long.

        Raises:
            Unavailable: there are no credentials just now.
        """

        async def once(attempt: Attempt) -> str:
            with _translated(request.operation):
                async with timeout(attempt.seconds):
                    return await self._signed(request, seconds)

        return await persist(once, self.options.read_seconds)

    async def _signed(self, request: Request, seconds: int) -> str:
        method, headers = _METHODS[request.operation], request.headers()
        wanted = Wanted(request.operation, method, request.params, headers)
        try:
            return await self.signer.sign(wanted, seconds)
        except NO_KEY as error:
            raise keyless(error) from error

    @contextmanager
    def _attempt(self, operation: str, length: int = 0) -> Iterator[_Sent]:
        sent = _Sent(sent=length)
        began = time.monotonic()
        try:
            with _translated(operation):
                yield sent
        finally:
            if self.observe is not None:
                seconds = time.monotonic() - began
                self.observe(operation, seconds, sent.status, sent.sent, sent.received)


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Let nothing of aiohttp's or botocore's out."""
    try:
        yield
    except Refused as refused:
        raise refused.error() from refused
    except FAILURES as error:
        raise failure(operation, error) from cause(error)


def _extend(running: Timeout, response: aiohttp.ClientResponse) -> None:
    """Give the bytes of the answer their time."""
    end = running.when()
    if end is not None:
        running.reschedule(end + (response.content_length or 0) / _BYTES_PER_SECOND)


async def _expected(request: Request, response: aiohttp.ClientResponse) -> None:
    """Return if it is an answer to the request; raises Refused."""
    if response.status < 400 and response.status in request.expect:
        return
    code = code_in(await response.read())
    refused = Refused(request.operation, response.status, code)
    if not refused.is_one_of(request.expect):
        raise refused
