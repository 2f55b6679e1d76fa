"""Where a request enters: it is understood, allowed, handled, answered and reported."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, time_ns
from typing import Final

import structlog
from aiohttp import web

from cacheproxy.access.clients import Clients
from cacheproxy.access.control import Access
from cacheproxy.access.policy import Action
from cacheproxy.api.call import Call
from cacheproxy.api.challenge import Challenges
from cacheproxy.api.errors import STATUS, render, render_unknown
from cacheproxy.api.health import Answer, Health
from cacheproxy.api.routes import Route, Routes, find
from cacheproxy.api.streaming import ClientGone
from cacheproxy.errors import RegistryError, Unauthorized

log = structlog.get_logger()

CLIENT_GONE: Final = 499  # nginx's status for it; it is seen in logs and metrics only


@dataclass(slots=True)
class Report:
    """What became of a request. It ended `at` so many nanoseconds since 1970; other times are in
    seconds. `error` is for the log.

    `done` is the status of what was done, and `status` what the client has of that, who may have
    gone. `digest` is of what was stored or found, where that was told.
    """

    call: Call
    action: Action | None
    digest: str | None
    done: int
    status: int
    at: int
    seconds: float
    first_byte_seconds: float
    error: str | None


class Entrance:
    """`running` are the calls that are being answered; each is told of when it has `ended`."""

    def __init__(
        self,
        routes: Routes,
        access: Access,
        challenges: Challenges,
        clients: Clients,
        health: Health,
        ended: Callable[[Report], None],
    ) -> None:
        self._routes = routes
        self._access = access
        self._challenges = challenges
        self._clients = clients
        self._health = health
        self._ended = ended
        self.running: set[Call] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if found := self._health.answers(request.raw_path):
            return await self._tell(request, *found)
        started = perf_counter()
        route, call = self._understand(request)
        forwarded = request.headers.getall("X-Forwarded-For", ())
        call.address = self._clients.address(forwarded, request.remote or "")
        self.running.add(call)
        status, done, error, digest = CLIENT_GONE, CLIENT_GONE, None, None
        try:
            response, error = await self._answer(route, call)
            done = response.status
            digest = response.headers.get("Docker-Content-Digest")
            await _send(call, response)
            status = done
            return response
        except (ClientGone, ConnectionError):
            return _break(request)
        finally:
            self.running.discard(call)
            now = perf_counter()
            first_byte = (call.first_byte or now) - started
            action, at, seconds = route.action, time_ns(), now - started
            self._ended(Report(call, action, digest, done, status, at, seconds, first_byte, error))

    async def _tell(
        self, request: web.BaseRequest, answer: Answer, action: Action | None
    ) -> web.StreamResponse:
        """Answer an operator."""
        try:
            if action is not None:
                identity = await self._access.identify(request.headers.get("Authorization"))
                self._access.authorize(identity, action, None)
        except RegistryError as error:
            response = render(error)
            if isinstance(error, Unauthorized):
                self._challenges.ask_for_password(response)
            return response
        return await answer()

    def _understand(self, request: web.BaseRequest) -> tuple[Route, Call]:
        try:
            return find(self._routes, request)
        except RegistryError as error:
            return _refusal(error), Call(request, "none", None, "")

    async def _answer(self, route: Route, call: Call) -> tuple[web.StreamResponse, str | None]:
        """The answer, and what went wrong in words for the log."""
        try:
            if route.action is not None:
                credentials = call.request.headers.get("Authorization")
                call.identity = await self._access.identify(credentials)
                self._access.authorize(call.identity, route.action, call.name)
                # Not before: there is room for so many names, and it is not for strangers.
                call.client = self._clients.name(call.identity, call.request.headers, call.address)
            return await route.handler(call), None
        except RegistryError as error:
            if error.__cause__ is not None and STATUS[type(error)] >= 500:
                log.error("request_failed", endpoint=call.endpoint, exc_info=error)
            response, told = render(error), f"{error.code.name}: {error.detail}"
            if isinstance(error, Unauthorized):
                self._challenges.ask(response, call, route.action, error.problem)
        except (ClientGone, ConnectionError):
            raise
        except Exception as error:
            log.exception("request_crashed", endpoint=call.endpoint)
            response, told = render_unknown(), repr(error)
        if call.first_byte:
            raise ClientGone  # half an answer is out: only a broken connection can take it back
        return response, told


async def _send(call: Call, response: web.StreamResponse) -> None:
    """Send what the handler has not sent itself. An unread body ends the connection after it."""
    if call.first_byte:
        return
    request = call.request
    if not request.content.is_eof():
        response.force_close()
    await response.prepare(request)
    call.first_byte = perf_counter()
    await response.write_eof()
    if isinstance(response, web.Response) and request.method != "HEAD":
        call.sent = response.content_length or 0


def _refusal(error: RegistryError) -> Route:
    async def refuse(call: Call) -> web.StreamResponse:
        raise error

    return Route("none", Action.PULL, refuse)


def _break(request: web.BaseRequest) -> web.StreamResponse:
    """Break the connection, so that the client cannot take what it has for the whole."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=CLIENT_GONE)
