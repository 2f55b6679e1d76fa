"""Bytes between the wire and files."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError
from aiohttp.web_exceptions import HTTPException
from aiohttp.web_protocol import RequestPayloadError

from cacheproxy.api.call import Call
from cacheproxy.errors import BlobTooLarge, RequestInvalid, RequestTimeout, Unavailable
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.pieces import Pieces
from cacheproxy.storage.read_ahead import ReadAhead

# One call to the kernel. As much as stays in a processor's cache until the client takes it: with
# several MiB a call costs less of Python and twice as much of the kernel.
_WINDOW_BYTES: Final = 512 << 10

# By TLS a window is read, encrypted and copied in pieces. If they are as large as the window, the C
# library gives their memory back and takes it anew each time, which costs as much as all the rest.
_TLS_PIECE_BYTES: Final = 128 << 10

_BOUNDARY: Final = "cacheproxy-byteranges"

Source = Callable[[ByteRange], Awaitable[LocalFile]]
"""Opens a blob of which a part is to be read."""


class ClientGone(Exception):
    """The client closed the connection in the middle of a request or an answer."""


class Intake:
    """Takes the bodies of requests, each of which may be idle for `idle_timeout` seconds."""

    def __init__(self, idle_timeout: float) -> None:
        self.idle_timeout = idle_timeout
        self.ahead = ReadAhead()

    def body(self, call: Call, limit: int) -> "RequestBody":
        """The body of a request that may have `limit` bytes. Raises BlobTooLarge."""
        return RequestBody(self, call, limit)


class RequestBody:
    """The body of a request as a `content.spool.Body`: at most `limit` bytes of it.

    Asking for the first batch tells a client that waits for `100 Continue` to go on.
    """

    def __init__(self, intake: Intake, call: Call, limit: int) -> None:
        self._intake = intake
        self._call = call
        self._limit = limit
        self.length = call.request.content_length
        if self.length is not None and self.length > limit:
            raise BlobTooLarge(f"at most {limit} bytes are taken")

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        request = self._call.request
        await _continue(request)
        async with aclosing(self._intake.ahead.batches(request.content)) as batches:
            while (batch := await self._next(request, batches)) is not None:
                self._call.received += batch.size
                if self._call.received > self._limit:
                    raise BlobTooLarge(f"at most {self._limit} bytes are taken")
                yield batch

    async def read(self) -> bytes:
        """All of it, where that is little."""
        async with aclosing(self.batches()) as batches:
            return b"".join([piece async for batch in batches for piece in batch])

    async def _next(
        self, request: web.BaseRequest, batches: AsyncGenerator[Pieces, None]
    ) -> Pieces | None:
        try:
            async with asyncio.timeout(self._intake.idle_timeout):
                return await anext(batches, None)
        except TimeoutError:
            idle = f"{self._intake.idle_timeout:g} seconds"
            raise RequestTimeout(f"nothing came for {idle}") from None
        except (ConnectionError, RequestPayloadError, PayloadEncodingError, HTTPException) as error:
            if request.transport is None or request.transport.is_closing():
                raise ClientGone from error
            raise RequestInvalid("the body breaks off or is badly encoded") from error


async def _continue(request: web.BaseRequest) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


async def send_ranges(
    call: Call,
    headers: dict[str, str],
    source: Source,
    size: int,
    ranges: Sequence[ByteRange],
    idle_timeout: float,
) -> web.StreamResponse:
    """Answer 206 with ranges of a blob: one as it is, several as multipart/byteranges."""
    if len(ranges) == 1:
        [only] = ranges
        partial = {**headers, "Content-Range": only.content_range(size)}
        with await source(only) as file:
            await file.ready(only.start)  # what cannot be read at all is still an error in words
            response = await _begin(call, 206, partial, only.length)
            await _copy(call, file, only, idle_timeout)
        await response.write_eof()
        return response
    heads = [_part_head(headers["Content-Type"], each.content_range(size)) for each in ranges]
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    length = sum(map(len, heads)) + sum(each.length for each in ranges) + len(tail)
    multipart = {**headers, "Content-Type": f"multipart/byteranges; boundary={_BOUNDARY}"}
    response = await _begin(call, 206, multipart, length)
    for head, each in zip(heads, ranges, strict=True):
        with await source(each) as file:
            await response.write(head)
            await _copy(call, file, each, idle_timeout)
    await response.write(tail)
    await response.write_eof()
    call.sent += length - sum(each.length for each in ranges)
    return response


async def send_file(
    call: Call, headers: dict[str, str], file: LocalFile, idle_timeout: float
) -> web.StreamResponse:
    """Answer with a whole file, which the kernel copies."""
    await file.ready(0)  # what cannot be read at all is still an error in words
    response = await _begin(call, 200, headers, file.size)
    await _copy(call, file, ByteRange(0, file.size), idle_timeout)
    await response.write_eof()
    return response


async def _begin(
    call: Call, status: int, headers: dict[str, str], length: int
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(length)})
    await response.prepare(call.request)
    call.first_byte = perf_counter()
    return response


async def _copy(call: Call, file: LocalFile, part: ByteRange, idle_timeout: float) -> None:
    """Send a part of a file as it becomes ready, unless the client takes nothing for too long."""
    start, end = part.start, part.start + part.length
    while start < end:
        count = min(_WINDOW_BYTES, end - start, await file.ready(start) - start)
        transport = call.request.transport
        if transport is None or transport.is_closing():
            raise ClientGone
        try:
            async with asyncio.timeout(idle_timeout):
                sent = await _send(call, transport, file, start, count)
        except (ConnectionError, TimeoutError, asyncio.SendfileNotAvailableError) as error:
            raise ClientGone from error
        call.sent += sent
        start += sent
        if sent < count:
            raise Unavailable("the file is shorter than it was")


async def _send(
    call: Call, transport: asyncio.Transport, file: LocalFile, start: int, count: int
) -> int:
    """Send a window of a file; fewer than `count` bytes only if it ends there."""
    if transport.get_extra_info("sslcontext"):  # the kernel cannot; asyncio would do 16 KiB a time
        sent = _encrypt(transport, file, start, count)
        await call.request.writer.drain()
        await asyncio.sleep(0)  # a client that takes everything at once is not the only one
        return sent
    if (sent := _send_at_once(transport, file, start, count)) == count:
        await asyncio.sleep(0)  # likewise
        return sent
    loop = asyncio.get_running_loop()
    return sent + await loop.sendfile(transport, file, start + sent, count - sent, fallback=False)  # type: ignore[arg-type]  # it needs no more than fileno()


def _encrypt(transport: asyncio.Transport, file: LocalFile, start: int, count: int) -> int:
    """Give a window to a connection by TLS, which keeps what the socket does not take yet."""
    sent = 0
    while sent < count:
        piece = file.read_at(start + sent, min(_TLS_PIECE_BYTES, count - sent))
        if not piece:
            break
        transport.write(piece)
        sent += len(piece)
    return sent


def _send_at_once(transport: asyncio.Transport, file: LocalFile, start: int, count: int) -> int:
    """What the socket takes at once, without the turn that the loop's own way costs."""
    if transport.get_write_buffer_size():
        return 0
    try:
        return os.sendfile(transport.get_extra_info("socket").fileno(), file.fd, start, count)
    except OSError:
        return 0  # it blocks; or it has failed, as the loop will find out too


def _part_head(content_type: str, content_range: str) -> bytes:
    fields = f"Content-Type: {content_type}\r\nContent-Range: {content_range}"
    return f"\r\n--{_BOUNDARY}\r\n{fields}\r\n\r\n".encode()
