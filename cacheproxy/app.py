"""The composition root: builds the objects of one process, and owns their lifetimes."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Final

import structlog

from cacheproxy.access.clients import ClientNames
from cacheproxy.access.control import Access, OpenAccess
from cacheproxy.access.policy import Action
from cacheproxy.api.blobs import BlobsApi
from cacheproxy.api.challenge import Challenges
from cacheproxy.api.connection import HttpServer
from cacheproxy.api.entrance import Entrance, Report
from cacheproxy.api.health import Health
from cacheproxy.api.listings import ListingsApi
from cacheproxy.api.manifests import ManifestsApi
from cacheproxy.api.ping import ping
from cacheproxy.api.routes import Noun, Route, Routes
from cacheproxy.api.streaming import Intake
from cacheproxy.api.tokens import TokensApi
from cacheproxy.api.uploads import UploadsApi
from cacheproxy.collecting import Collecting
from cacheproxy.config import shared_metrics
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.counting import Counting
from cacheproxy.errors import RegistryError
from cacheproxy.listening import Listeners
from cacheproxy.logs import RequestLog
from cacheproxy.registry.registries import Registries
from cacheproxy.registry.registry import Registry
from cacheproxy.registry.tickets import Tickets, load_secret
from cacheproxy.registry.together import together
from cacheproxy.rules import cache_rules, clients, namespaces
from cacheproxy.security import Security, service_of
from cacheproxy.settings import Config
from cacheproxy.storage.blocking import in_thread
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.opening import Place
from cacheproxy.telemetry import Metrics
from cacheproxy.upkeep import Turns, Upkeep, every

log = structlog.get_logger()

_THREADS: Final = 32  # they mostly wait for disks
_SWEEP_SECONDS: Final = 3600.0
_LAST_USES_SECONDS: Final = 5.0
_WATCH_SECONDS: Final = 1.0
_MEASURE_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 10.0
_LAG_SECONDS: Final = 0.25
_NAMES: Final = "clients"
_COLLECTING: Final = "collecting"
_END_SECONDS: Final = 1.0
_NOTHING_SECONDS: Final = 0.01
_BACKLOG: Final = 1024
_DRAIN_POLL_SECONDS: Final = 0.05
_LINGER_SECONDS: Final = 0.5  # after the last use of a connection that a proxy keeps


class App:
    """One serving process over an open bucket. `access` decides who may do what; `conditions` is
    what its own processes must inherit, see `Place`."""

    def __init__(
        self,
        config: Config,
        bucket: Bucket,
        secret: bytes,
        access: Access | None = None,
        tls: SSLContext | None = None,
        metrics: Metrics | None = None,
        conditions: int | None = None,
    ) -> None:
        self._bucket = bucket
        self._metrics = metrics = metrics or Metrics(shared_metrics())
        self._tier = None if bucket.local else _tier(config, metrics)
        self._contents = contents = _contents(bucket, self._tier)
        access = access or OpenAccess()
        tickets = Tickets(secret, config.limits.upload_seconds, time.time)
        rules = cache_rules(config.cache)
        self._registries = registries = Registries(
            namespaces(config.storage),
            lambda namespace: Registry(
                bucket, namespace, contents, tickets, rules, may_push=access.may_push
            ),
        )
        idle = config.server.body_idle_timeout
        intake = Intake(idle)
        self._log = RequestLog()
        apart = bool(config.metrics.listen)
        self.health = Health(bucket.ping, self._exposition, apart=apart)
        tier = "disk" if bucket.local else "s3"
        routes = _routes(
            BlobsApi(registries, tier, idle, config.s3.redirect_bytes),
            UploadsApi(registries, access, config.limits.blob_bytes, intake),
            ManifestsApi(registries, tier, config.limits.manifest_bytes, intake),
            ListingsApi(registries, access),
            TokensApi(access, intake),
        )
        self.entrance = Entrance(
            routes,
            access,
            Challenges(config.server.public_url, service_of(config)),
            clients(config.clients, ClientNames(config.clients.names, _shared(_NAMES))),
            self.health,
            self._report,
        )
        self._counting = Counting(metrics, self.entrance.running)
        turns = Turns(_shared(_COLLECTING))
        self._upkeep = [
            Upkeep(
                registry,
                Collecting(config, bucket, registry.namespace, conditions),
                config.collection.interval_seconds,
                turns,
                metrics,
            )
            for registry in registries
        ]
        self._server = config.server
        self._tls = tls
        self._limits = config.limits

    def _report(self, report: Report) -> None:
        self._counting.request_ended(report)
        self._log.request_ended(report)

    async def _exposition(self) -> tuple[bytes, str]:
        await self._counting.count()
        return await in_thread(self._metrics.exposition)

    @asynccontextmanager
    async def serving(
        self, listener: socket.socket, operators: socket.socket | None = None
    ) -> AsyncIterator[None]:
        """Serve on bound sockets; on exit, let running requests end, within the time allowed."""
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(_THREADS, "blocking")
        loop.set_default_executor(threads)
        http = HttpServer(
            self.entrance.handle,
            head_timeout=self._server.header_timeout,
            keepalive_timeout=self._server.keepalive_timeout,
        )
        await together(
            *[registry.condemned.poll() for registry in self._registries],
            *[registry.hidden.poll() for registry in self._registries],
        )
        server = await loop.create_server(http, sock=listener, backlog=_BACKLOG, ssl=self._tls)
        chores = [asyncio.create_task(chore) for chore in self._chores()]
        try:
            async with self._telling(operators):
                yield
                await self._drain(http, server)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            server.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_USES_SECONDS):
                    writes = [registry.uses.write() for registry in self._registries]
                    await asyncio.gather(*writes, return_exceptions=True)
            # aiohttp waits for idle connections too, which have nothing to end.
            await http.shutdown(_END_SECONDS if self.entrance.running else _NOTHING_SECONDS)
            await self._contents.close()
            await self._counting.count()  # other workers show it
            threads.shutdown(wait=True)

    @asynccontextmanager
    async def _telling(self, operators: socket.socket | None) -> AsyncIterator[None]:
        """Answer operators on a socket of their own, if there is one."""
        if operators is None:
            yield
            return
        http = HttpServer(
            self.health.handle,
            head_timeout=self._server.header_timeout,
            keepalive_timeout=self._server.keepalive_timeout,
        )
        http.draining = True  # who asks now and then keeps no connection that would have to end
        server = await asyncio.get_running_loop().create_server(http, sock=operators)
        try:
            yield
        finally:
            server.close()
            await http.shutdown(_END_SECONDS)

    async def _drain(self, http: HttpServer, server: asyncio.Server) -> None:
        """Answer on, `/readyz` with 503, until no request is running or the time is over. Then
        take no new connections, and answer what still comes on those that proxies have kept."""
        self.health.draining = http.draining = True
        deadline = time.monotonic() + self._server.drain_timeout
        log.info("draining", running=len(self.entrance.running))
        while self.entrance.running and time.monotonic() < deadline:
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        server.close()
        known, used = 0, time.monotonic()
        while (kept := len(http.connections)) and (now := time.monotonic()) < deadline:
            if self.entrance.running or kept != known:  # each is used once more, see HttpServer
                known, used = kept, now
            elif now - used > _LINGER_SECONDS:
                break
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    def _chores(self) -> Iterator[Coroutine[None, None, None]]:
        """What is done beside requests, for as long as there are any."""
        yield every(_SWEEP_SECONDS, self._sweep)
        yield every(_SETTLE_SECONDS, self._settle, first=_SETTLE_SECONDS)
        yield self._measure_lag()
        if self._tier is not None:
            yield every(_MEASURE_SECONDS, self._measure_tier)
        for upkeep in self._upkeep:
            yield from upkeep.chores()

    async def _settle(self) -> None:
        """Count; exports have changed nothing where the tag was looked at, and not pushed to."""
        await self._counting.count()
        for look in self._counting.settled():
            caches = self._registries.of(look.repository).caches
            if not await caches.pushed_since(look.repository, look.tag, look.at):
                self._counting.unchanged(look)

    async def _measure_lag(self) -> None:
        """A busy event loop keeps every request waiting."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_SECONDS)
            self._metrics.lagged(max(0.0, time.monotonic() - before - _LAG_SECONDS))

    async def _measure_tier(self) -> None:
        assert self._tier is not None
        size, objects = await self._tier.usage()
        self._metrics.tier_has(size, objects, self._tier.limit)

    async def _sweep(self) -> None:
        """Remove what dead sessions, writers and processes left."""
        for registry in self._registries:
            await self._swept("sessions", registry.uploads.sweep())
        await self._swept("writers", self._bucket.sweep(self._limits.upload_seconds))
        await self._swept("spools", self._contents.sweep())

    async def _swept(self, what: str, sweep: Awaitable[int]) -> None:
        """Say what became of a sweep; where one fails, the others are needed all the more."""
        try:
            if removed := await sweep:
                log.info("swept", what=what, removed=removed)
        except RegistryError as error:
            log.warning("sweep_failed", what=what, detail=error.detail)


async def run(config: Config, storage: Place, listeners: Listeners, security: Security) -> None:
    """Serve until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, ended.set)
    metrics = Metrics(shared_metrics())
    async with storage.opened(metrics.s3_asked) as bucket:
        secret = await load_secret(bucket)
        app = App(
            config,
            bucket,
            secret,
            security.access,
            security.tls,
            metrics,
            storage.conditions,
        )
        async with app.serving(listeners.clients, listeners.operators):
            log.info(
                "serving",
                listen=listeners.address,
                metrics=listeners.metrics_address or None,
                storage=config.storage.url,
            )
            watch = asyncio.create_task(every(_WATCH_SECONDS, security.look))
            await ended.wait()
            watch.cancel()
    log.info("ended")


def _tier(config: Config, metrics: Metrics) -> Tier:
    return Tier(config.tier.folder, config.tier.bytes, metrics.evicted)


def _contents(bucket: Bucket, tier: Tier | None) -> Contents:
    """A folder's objects are local already; others come by way of the tier."""
    if isinstance(bucket, FolderBucket):
        return Contents(bucket, SpoolFolder(bucket.spool))
    assert tier is not None
    return Contents(bucket, SpoolFolder(tier.spool), tier)


def _shared(name: str) -> str | None:
    """The file with this name that workers share, as they share metrics."""
    shared = shared_metrics()
    return shared and os.path.join(shared, name)


def _routes(
    blobs: BlobsApi,
    uploads: UploadsApi,
    manifests: ManifestsApi,
    listings: ListingsApi,
    tokens: TokensApi,
) -> Routes:
    pull, push, delete = Action.PULL, Action.PUSH, Action.DELETE
    return {
        Noun.BASE: {"GET": Route("end-1", pull, ping), "HEAD": Route("end-1", pull, ping)},
        Noun.CATALOG: {"GET": Route("catalog", pull, listings.catalog)},
        Noun.BLOB: {
            "GET": Route("end-2", pull, blobs.get),
            "HEAD": Route("end-2", pull, blobs.head),
            "DELETE": Route("end-10", delete, blobs.delete),
        },
        Noun.UPLOADS: {"POST": Route("end-4a", push, uploads.begin)},
        Noun.UPLOAD: {
            "PATCH": Route("end-5", push, uploads.append),
            "PUT": Route("end-6", push, uploads.finish),
            "GET": Route("end-13", push, uploads.status),
            "DELETE": Route("end-14", push, uploads.cancel),
        },
        Noun.MANIFEST: {
            "GET": Route("end-3", pull, manifests.get),
            "HEAD": Route("end-3", pull, manifests.head),
            "PUT": Route("end-7", push, manifests.put),
            "DELETE": Route("end-9", delete, manifests.delete),
        },
        Noun.TAGS: {"GET": Route("end-8", pull, listings.tags)},
        Noun.REFERRERS: {"GET": Route("end-12", pull, listings.referrers)},
        Noun.TOKEN: {
            "GET": Route("token", None, tokens.get),
            "POST": Route("token", None, tokens.post),
        },
    }
