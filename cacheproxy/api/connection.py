"""One client connection: aiohttp's, with a time limit on headers and errors in the spec's form.

aiohttp waits for the rest of a request's head as long as for the next request, and answers what is
not HTTP in HTML. Its connection class offers no hook for either, hence the subclass; it leans on
one private name, `_waiter`, which is pending exactly while no request is being handled. A head that
begins before the answer to the request before it has as much time as an idle connection, until more
of it comes.
"""

import asyncio
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from cacheproxy.api.errors import render, render_unknown
from cacheproxy.errors import RequestInvalid

# Bearer tokens of identity providers reach some KiB (aiohttp's default is 8190 bytes).
HEADER_BYTES: Final = 32 * 1024


# What is read ahead on every connection; bodies raise it, see `streaming.Intake`.
READ_BYTES: Final = 64 * 1024


class Connection(RequestHandler):
    __slots__ = ("_head_deadline", "_head_timeout")

    def __init__(self, manager: "HttpServer", head_timeout: float, **settings: Any) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **settings)
        self._head_timeout = head_timeout
        self._head_deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiting = self._waiter is not None and not self._waiter.done()
        if not waiting:
            self._disarm()
        elif self._head_deadline is None:
            loop = asyncio.get_running_loop()
            self._head_deadline = loop.call_later(self._head_timeout, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp itself could not parse; faults of handlers do not come here."""
        if status == 400:
            response = render(RequestInvalid("this is not a request that HTTP/1.1 allows"))
        else:
            response = render_unknown()
        response.force_close()
        return response

    def _disarm(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None


class HttpServer(web.Server):
    """Makes the connections. `keepalive_timeout` must exceed the 120 s for which BuildKit keeps
    idle connections: who closes first, loses the other's request. `draining` makes every answer
    the last one on its connection, so that clients and proxies do not come back."""

    def __init__(self, handler: Any, *, head_timeout: float, keepalive_timeout: float) -> None:
        super().__init__(handler, request_factory=self._request)
        self.draining = False
        self._settings: dict[str, Any] = {
            "access_log": None,  # one line per request is written elsewhere, and costs a third
            "auto_decompress": False,  # a body is stored as it comes, whatever its encoding
            "head_timeout": head_timeout,
            "keepalive_timeout": keepalive_timeout,
            "max_field_size": HEADER_BYTES,
            "max_line_size": HEADER_BYTES,
            "read_bufsize": READ_BYTES,
        }

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if self.draining:
            message = message._replace(should_close=True)
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop)

    def __call__(self) -> Connection:
        return Connection(self, **self._settings)
