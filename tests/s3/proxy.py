"""A proxy between the server and S3 that counts calls, delays them and lets chosen ones fail.

It changes nothing in what it passes on: signatures cover the host and the query string, so these
stay as they came, and bodies are streamed. S3 has to be called in path style.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from tests.s3.calls import Call, Kind, parse
from tests.s3.faults import Fault, Faults, What

_READ = 256 * 1024
_OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Expect")
_ERRORS = {What.ERROR: (500, "InternalError"), What.SLOW_DOWN: (503, "SlowDown")}
_ERROR = """\
<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>A fault of the test.</Message></Error>"""


class S3Proxy:
    """A running proxy. Everything public is safe to use from any thread."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession, delay: float) -> None:
        """Use `running` or `proxy_thread`."""
        self.delay = delay
        """Seconds added to every call."""
        self.calls: list[Call] = []
        """All calls since the last `reset`, in the order in which they came."""
        self._upstream = upstream.rstrip("/")
        self._session = session
        self._faults = Faults()
        self._released = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = web.Server(
            self._handle,
            handler_cancellation=True,  # a client that leaves ends its call to S3
            auto_decompress=False,
            read_bufsize=_READ,
        )
        # Bound but not listening, it keeps the port while the proxy is down.
        self._holder = _bind(0)
        self._listener: socket.socket | None = None
        self._accepted: set[asyncio.Task[object]] = set()
        port = self._holder.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    @asynccontextmanager
    async def running(cls, upstream: str, *, delay: float = 0.0) -> AsyncIterator[S3Proxy]:
        """Serve in this event loop; `upstream` is the URL of an S3 server, without a path."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=_OWN_HEADERS,
            read_bufsize=_READ,
        ) as session:
            # aiohttp would repeat what fails on a pooled connection, with a body that is used up.
            session._retry_connection = False
            proxy = cls(upstream, session, delay)
            proxy.up()
            try:
                yield proxy
            finally:
                await proxy._close()

    @property
    def counts(self) -> Counter[tuple[str, Kind]]:
        """How many calls there were by operation and kind of key, since the last `reset`."""
        return Counter((call.operation, call.kind) for call in self.calls)

    @property
    def bytes_sent(self) -> int:
        """Bytes of bodies that went to S3 since the last `reset`."""
        return sum(call.sent for call in self.calls)

    @property
    def bytes_received(self) -> int:
        """Bytes of bodies that went to the client since the last `reset`."""
        return sum(call.received for call in self.calls)

    @property
    def fired(self) -> list[Fault]:
        """The faults that have happened since the last `reset`, once for each call."""
        return self._faults.fired

    def fail(self, *faults: Fault) -> None:
        """Add rules."""
        for fault in faults:
            self._faults.add(fault)

    def reset(self) -> None:
        """Forget all calls and rules; stalled calls stay stalled."""
        self.calls.clear()
        self._faults.clear()

    def release(self) -> None:
        """End the stall of all calls that are stalled now."""
        self._in_loop(self._release)

    def down(self) -> None:
        """Break all connections and refuse new ones."""
        self._in_loop(self._stop_listening)

    def up(self) -> None:
        """Accept connections."""
        self._in_loop(self._listen)

    def _in_loop(self, act: Callable[[], None]) -> None:
        try:
            inside = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            inside = False
        if inside:
            act()
            return
        done: Future[None] = Future()

        def settle() -> None:
            act()
            done.set_result(None)

        self._loop.call_soon_threadsafe(settle)
        done.result(timeout=60)

    def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bind(self._holder.getsockname()[1])
            self._listener.listen(1024)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._server, connection)
        )
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for connection in self._server.connections:
            _reset(connection.transport)

    async def _close(self) -> None:
        self._stop_listening()
        self._holder.close()
        await asyncio.gather(*self._accepted)
        await self._server.shutdown(timeout=1)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = parse(request.method, request.raw_path, CIMultiDict(request.headers))
        self.calls.append(call)
        fault = self._faults.choose(call)
        try:
            return await self._answer(request, call, fault)
        except aiohttp.ClientError:
            # Either end has left; the other end shall see it.
            return _broken(request)
        finally:
            call.over = True

    async def _answer(
        self, request: web.BaseRequest, call: Call, fault: Fault | None
    ) -> web.StreamResponse:
        if self.delay:
            await asyncio.sleep(self.delay)
        what = fault.what if fault else None
        if what is What.STALL:
            await self._released.wait()
        if what is What.REFUSE or self._listener is None:
            return _broken(request)
        if what in _ERRORS:
            return await _error(request, call, *_ERRORS[what])
        async with self._forward(request, call) as upstream:
            if what is What.RESET:
                await upstream.read()
                return _broken(request)
            return await self._pass_on(request, call, fault, upstream)

    @asynccontextmanager
    async def _forward(
        self, request: web.BaseRequest, call: Call
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = _end_to_end(request.headers)
        body = _body(request, call) if request.body_exists else None
        url = URL(self._upstream + call.target, encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as upstream:
            yield upstream

    async def _pass_on(
        self,
        request: web.BaseRequest,
        call: Call,
        fault: Fault | None,
        upstream: aiohttp.ClientResponse,
    ) -> web.StreamResponse:
        what = fault.what if fault else None
        answer = web.StreamResponse(
            status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers)
        )
        if fault and what is What.TRUNCATED:
            answer.content_length = min(fault.at, answer.content_length or 0)
        await answer.prepare(request)
        request.writer.send_headers()
        call.status = upstream.status
        async for chunk in upstream.content.iter_any():
            out = fault.spoil(chunk, call.received) if fault else chunk
            call.received += len(out)
            if out:
                await answer.write(out)
            if len(out) < len(chunk):
                break
        if what is What.STALL_BODY:
            await self._released.wait()
        if what in (What.CUT, What.STALL_BODY) and request.transport:
            # Unlike a reset, this delivers what has been written.
            request.transport.close()
        return answer


@contextmanager
def proxy_thread(upstream: str, *, delay: float = 0.0) -> Iterator[S3Proxy]:
    """Serve in a thread of its own, for tests that block and for benchmarks."""
    started: Future[tuple[S3Proxy, asyncio.Event]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        async with S3Proxy.running(upstream, delay=delay) as proxy:
            started.set_result((proxy, ended))
            await ended.wait()

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=main, name="s3-proxy")
    thread.start()
    try:
        proxy, ended = started.result(timeout=60)
        try:
            yield proxy
        finally:
            proxy._in_loop(ended.set)
    finally:
        thread.join(timeout=60)


async def _body(request: web.BaseRequest, call: Call) -> AsyncIterator[bytes]:
    await _invite(request)
    async for chunk in request.content.iter_any():
        call.sent += len(chunk)
        yield chunk


async def _invite(request: web.BaseRequest) -> None:
    """Tell a client that waits for leave to send its body that it may."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Otherwise aiohttp takes these bytes for the beginning of the answer.
        request.writer.output_size = 0


async def _error(request: web.BaseRequest, call: Call, status: int, code: str) -> web.Response:
    await _invite(request)
    async for _ in request.content.iter_any():
        pass
    call.status = status
    text = _ERROR.format(code=code)
    return web.Response(status=status, text=text, content_type="application/xml")


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


def _broken(request: web.BaseRequest) -> web.StreamResponse:
    """Reset the connection; what is returned goes nowhere."""
    _reset(request.transport)
    return web.Response()


def _reset(transport: asyncio.BaseTransport | None) -> None:
    if not isinstance(transport, asyncio.Transport) or transport.is_closing():
        return
    with contextlib.suppress(OSError):
        # A time limit of zero makes the kernel send RST where it would send FIN.
        linger = struct.pack("ii", 1, 0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
