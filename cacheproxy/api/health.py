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
    """`/healthz`, `/readyz` and `/metrics`. `draining` is set when the server is to end."""

    def __init__(
        self,
        ping: Callable[[], Awaitable[None]],
        exposition: Callable[[], Awaitable[tuple[bytes, str]]],
    ) -> None:
        self.draining = False
        self._ping = ping
        self._exposition = exposition
        self._trouble: str | None = None
        self._asked = float("-inf")
        self._answers: dict[str, tuple[Answer, Action | None]] = {
            "/healthz": (self.healthz, None),
            "/readyz": (self.readyz, None),
            "/metrics": (self.metrics, Action.METRICS),
        }

    def answers(self, path: str) -> tuple[Answer, Action | None] | None:
        """What answers a path, if anything here does, and what must be allowed to ask it."""
        return self._answers.get(path)

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
