"""Upkeep: what a server does beside requests, for as long as there are any."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final

import structlog

from cacheproxy.collecting import Collecting
from cacheproxy.errors import RegistryError
from cacheproxy.registry.registry import Registry
from cacheproxy.storage.files import try_lock
from cacheproxy.telemetry import Metrics

log = structlog.get_logger()

_POLL_SECONDS: Final = 10.0
_CONDEMNED_SECONDS: Final = 60.0
_USES_SECONDS: Final = 600.0
_COLLECT_SECONDS: Final = 600.0  # how often it is looked whether that is due


async def every(
    seconds: float, chore: Callable[[], Awaitable[None]], *, first: float = 0.0
) -> None:
    """Do a chore every so often; one that fails is tried again the next time."""
    await asyncio.sleep(first)
    while True:
        try:
            await chore()
        except RegistryError as error:
            log.warning("chore_failed", chore=chore.__qualname__, detail=error.detail)
        await asyncio.sleep(seconds)


class Turns:
    """Of all namespaces and workers one at a time has a collector, for each takes memory of its
    own. Workers have a lock in common, the file at `path`."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[bool]:
        """Whether it is our turn, when it is that of this process; others are not waited for."""
        async with self._lock:
            if self._path is None:
                yield True
                return
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                yield try_lock(fd)
            finally:
                os.close(fd)


class Upkeep:
    """What is done for one namespace. It is collected every `interval` seconds, or with 0 not here,
    when it is its turn."""

    def __init__(
        self,
        registry: Registry,
        collecting: Collecting,
        interval: float,
        turns: Turns,
        metrics: Metrics,
    ) -> None:
        self._registry = registry
        self._collecting = collecting
        self._interval = interval
        self._turns = turns
        self._metrics = metrics

    def chores(self) -> Iterator[Coroutine[None, None, None]]:
        yield every(_POLL_SECONDS, self._registry.hidden.poll)
        yield every(_CONDEMNED_SECONDS, self._registry.condemned.poll, first=_CONDEMNED_SECONDS)
        yield every(_CONDEMNED_SECONDS, self._finish, first=_CONDEMNED_SECONDS)
        yield every(_USES_SECONDS, self._registry.uses.write, first=_USES_SECONDS)
        if self._interval:
            look = min(self._interval, _COLLECT_SECONDS)
            yield every(look, self._collect, first=look)

    async def _finish(self) -> None:
        """Who pushes what a dead collector was deleting waits for that."""
        condemned = self._registry.condemned
        if condemned.doomed:
            await condemned.poll()  # it may be done by now
        if condemned.doomed:
            async with self._turns.take() as ours:
                if ours:
                    await self._collecting.finish()

    async def _collect(self) -> None:
        try:
            async with self._turns.take() as ours:
                report = await self._collecting.collect() if ours else None
        except RegistryError:
            self._metrics.collection_failed()
            raise
        if report is not None:
            self._metrics.collected(report.deleted)
            log.info("collected", namespace=self._registry.namespace.name, **asdict(report))
