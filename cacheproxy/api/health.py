"""What operators ask: is the process alive, can it serve, and what has it done."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from cacheproxy.access.policy import Action
from cacheproxy.errors import RegistryError

_PING_SECONDS: Final = 5.0

Answer = Callable[[], Awaitable[web.Response]]


class Health:
    """`/healthz`, `/readyz` and `/metrics`. `draining` is set when the server is to end.

    With `apart`, metrics are only told on the listener of operators, who need no credentials there.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[None]],
        exposition: Callable[[], Awaitable[tuple[bytes, str]]],
        *,
        apart: bool,
    ) -> None:
        self.draining = False
        self._ping = ping
        self._exposition = exposition
        self._trouble: str | None = None
        self._asked = float("-inf")
        self._apart = apart
        self._answers: dict[str, Answer] = {
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
        }

    def answers(self, path: str) -> tuple[Answer, Action | None] | None:
        """What answers a client's path, if anything here does, and what it must be allowed."""
        answer = self._answers.get(path)
        if answer is None:
            return None
        if path != "/metrics":
            return answer, None
        return (_absent, None) if self._apart else (answer, Action.METRICS)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the listener of operators, where there is nothing else."""
        answer = self._answers.get(request.path, _absent)
        return await answer()

    async def healthz(self) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(self) -> web.Response:
        """503 while draining, or while the bucket cannot be used (asked every few seconds)."""
        if self.draining:
            return web.Response(status=503, text="draining\n")
        if time.monotonic() - self._asked > _PING_SECONDS:
            self._trouble = await self._try()
            self._asked = time.monotonic()
        if self._trouble is not None:
            return web.Response(status=503, text=self._trouble + "\n")
        return web.Response(text="ready\n")

    async def metrics(self) -> web.Response:
        body, content_type = await self._exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _try(self) -> str | None:
        try:
            await self._ping()
        except RegistryError as error:
            return error.detail
        return None


async def _absent() -> web.Response:
    return web.Response(status=404, text="nothing is here\n")
