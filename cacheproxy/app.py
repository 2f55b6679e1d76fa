"""The composition root: builds the objects of one process, and owns their lifetimes."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from ssl import SSLContext
from typing import Final

import structlog

from cacheproxy.access.clients import Names
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
from cacheproxy.collection.budget import Budget
from cacheproxy.collection.collector import Collector
from cacheproxy.config import Config, shared_metrics
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.errors import RegistryError
from cacheproxy.listening import address_of
from cacheproxy.logs import RequestLog
from cacheproxy.registry.registry import Registry
from cacheproxy.registry.tickets import Tickets, load_secret
from cacheproxy.registry.uploads import Uploads
from cacheproxy.rules import cache_rules, clients, policies
from cacheproxy.security import Security, service_of
from cacheproxy.storage.blocking import in_thread
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from cacheproxy.storage.opening import Place
from cacheproxy.telemetry import Metrics

log = structlog.get_logger()

_THREADS: Final = 32  # they mostly wait for disks
_SWEEP_SECONDS: Final = 3600.0
_POLL_SECONDS: Final = 10.0
_CONDEMNED_SECONDS: Final = 60.0
_USES_SECONDS: Final = 600.0
_LAST_USES_SECONDS: Final = 5.0
_COLLECT_SECONDS: Final = 600.0  # how often it is looked whether that is due
_COLLECTED_PER_SECOND: Final = 2_500.0  # some 5 % of a processor
_WATCH_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 0.25
_NAMES: Final = "clients"
_END_SECONDS: Final = 1.0
_NOTHING_SECONDS: Final = 0.01
_BACKLOG: Final = 1024
_DRAIN_POLL_SECONDS: Final = 0.05
_LINGER_SECONDS: Final = 0.5  # after the last use of a connection that a proxy keeps


class App:
    """One serving process over an open bucket. `access` decides who may do what."""

    def __init__(
        self,
        config: Config,
        bucket: Bucket,
        secret: bytes,
        access: Access | None = None,
        tls: SSLContext | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        namespace = Namespace()
        self._bucket = bucket
        self._metrics = metrics = metrics or Metrics(shared_metrics())
        self._tier = None if bucket.local else _tier(config, metrics)
        self._contents = contents = _contents(bucket, self._tier)
        self._registry = registry = Registry(bucket, namespace, contents, cache_rules(config.cache))
        tickets = Tickets(secret, config.limits.upload_seconds, time.time)
        self.uploads = Uploads(bucket, namespace, contents, registry.blobs, tickets)
        access = access or OpenAccess()
        idle = config.server.body_idle_timeout
        intake = Intake(idle)
        self._log = RequestLog()
        self.health = Health(bucket.ping, self._exposition)
        tier = "disk" if bucket.local else "s3"
        routes = _routes(
            BlobsApi(registry.blobs, tier, idle, config.s3.redirect_bytes),
            UploadsApi(registry.blobs, self.uploads, access, config.limits.blob_bytes, intake),
            ManifestsApi(registry.manifests, tier, config.limits.manifest_bytes, intake),
            ListingsApi(registry.tags, registry.catalog, registry.referrers, access),
            TokensApi(access, intake),
        )
        self.entrance = Entrance(
            routes,
            access,
            Challenges(config.server.public_url, service_of(config)),
            clients(config.clients, _names(config)),
            self.health,
            metrics.request_began,
            self._report,
        )
        self._collector = Collector(
            bucket,
            namespace,
            registry.tags,
            policies(config.retention),
            config.collection.lease_seconds,
            budget=Budget(_COLLECTED_PER_SECOND),
        )
        self._interval = config.collection.interval_seconds
        self._server = config.server
        self._tls = tls
        self._limits = config.limits

    def _report(self, report: Report) -> None:
        self._metrics.request_ended(report)
        self._log.request_ended(report)

    async def _exposition(self) -> tuple[bytes, str]:
        self._metrics.settle()
        return await in_thread(self._metrics.exposition)

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve on a bound socket; on exit, let running requests end, within the time allowed."""
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(_THREADS, "blocking")
        loop.set_default_executor(threads)
        http = HttpServer(
            self.entrance.handle,
            head_timeout=self._server.header_timeout,
            keepalive_timeout=self._server.keepalive_timeout,
        )
        await self._registry.condemned.poll()
        await self._registry.hidden.poll()
        server = await loop.create_server(http, sock=listener, backlog=_BACKLOG, ssl=self._tls)
        chores = [asyncio.create_task(chore) for chore in self._chores()]
        try:
            yield
            await self._drain(http, server)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            server.close()
            with suppress(RegistryError, TimeoutError):
                async with asyncio.timeout(_LAST_USES_SECONDS):
                    await self._registry.uses.write()
            # aiohttp waits for idle connections too, which have nothing to end.
            await http.shutdown(_END_SECONDS if self.entrance.in_flight else _NOTHING_SECONDS)
            await self._contents.close()
            threads.shutdown(wait=True)

    async def _drain(self, http: HttpServer, server: asyncio.Server) -> None:
        """Answer on, `/readyz` with 503, until no request is running or the time is over. Then
        take no new connections, and answer what still comes on those that proxies have kept."""
        self.health.draining = http.draining = True
        deadline = time.monotonic() + self._server.drain_timeout
        log.info("draining", running=self.entrance.in_flight)
        while self.entrance.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        server.close()
        known, used = 0, time.monotonic()
        while (kept := len(http.connections)) and (now := time.monotonic()) < deadline:
            if self.entrance.in_flight or kept != known:  # each is used once more, see HttpServer
                known, used = kept, now
            elif now - used > _LINGER_SECONDS:
                break
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    def _chores(self) -> Iterator[Coroutine[None, None, None]]:
        """What is done beside requests, for as long as there are any."""
        yield _every(_SWEEP_SECONDS, self._sweep)
        yield _every(_POLL_SECONDS, self._registry.hidden.poll)
        yield _every(_CONDEMNED_SECONDS, self._registry.condemned.poll, first=_CONDEMNED_SECONDS)
        yield _every(_CONDEMNED_SECONDS, self._finish, first=_CONDEMNED_SECONDS)
        yield _every(_USES_SECONDS, self._registry.uses.write, first=_USES_SECONDS)
        yield _every(_SETTLE_SECONDS, self._settle, first=_SETTLE_SECONDS)
        yield self._watch_loop()
        if self._tier is not None:
            yield _every(_POLL_SECONDS, self._measure_tier)
        if self._interval:
            look = min(self._interval, _COLLECT_SECONDS)
            yield _every(look, self._collect, first=look)

    async def _settle(self) -> None:
        self._metrics.settle()

    async def _watch_loop(self) -> None:
        """Measure how late the event loop is: a busy one keeps every request waiting."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_SECONDS)
            self._metrics.lagged(max(0.0, time.monotonic() - before - _LAG_SECONDS))

    async def _measure_tier(self) -> None:
        assert self._tier is not None
        size, objects = await self._tier.usage()
        self._metrics.tier_has(size, objects, self._tier.limit)

    async def _finish(self) -> None:
        """Who pushes what a dead collector was deleting waits for that."""
        if self._registry.condemned.doomed:
            await self._collector.finish()

    async def _collect(self) -> None:
        report = await self._collector.collect(rest=self._interval)
        if report is not None:
            log.info("collected", **asdict(report))

    async def _sweep(self) -> None:
        """Remove what dead sessions, writers and processes left."""
        await self._swept("sessions", self.uploads.sweep())
        await self._swept("writers", self._bucket.sweep(self._limits.upload_seconds))
        await self._swept("spools", self._contents.sweep())

    async def _swept(self, what: str, sweep: Awaitable[int]) -> None:
        """Say what became of a sweep; where one fails, the others are needed all the more."""
        try:
            if removed := await sweep:
                log.info("swept", what=what, removed=removed)
        except RegistryError as error:
            log.warning("sweep_failed", what=what, detail=error.detail)


async def _every(
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


async def run(config: Config, storage: Place, listener: socket.socket, security: Security) -> None:
    """Serve until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, ended.set)
    metrics = Metrics(shared_metrics())
    async with storage.opened(metrics.s3_asked) as bucket:
        secret = await load_secret(bucket)
        app = App(config, bucket, secret, security.access, security.tls, metrics)
        async with app.serving(listener):
            log.info("serving", listen=address_of(listener), storage=config.storage.url)
            watch = asyncio.create_task(_every(_WATCH_SECONDS, security.look))
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


def _names(config: Config) -> Names:
    """Workers share the names of clients, as they share metrics."""
    shared = shared_metrics()
    return Names(config.clients.names, shared and os.path.join(shared, _NAMES))


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
