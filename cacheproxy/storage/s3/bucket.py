"""A Bucket in S3, or in what speaks like it.

    <prefix><key>          the bytes of an object, its metadata with them
    <prefix>.probe/...     what the probe at start writes and removes
    <prefix>.lock          held by the only server of a bucket without conditional writes

The version of an object is its ETag. A write on condition carries If-None-Match or If-Match. What
the S3 of the day makes of them is found out by `probe`, not believed.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies
from yarl import URL

from cacheproxy.errors import StorageInvalid, Unavailable
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import Head, Listed, Match, Observe, Stored, Upload
from cacheproxy.storage.layout import FORMAT_KEY
from cacheproxy.storage.s3.conditions import Conditions
from cacheproxy.storage.s3.credentials import Chain
from cacheproxy.storage.s3.explain import explain
from cacheproxy.storage.s3.join import join
from cacheproxy.storage.s3.listing import listed, sweep, walked
from cacheproxy.storage.s3.objects import S3Objects, pusher_in
from cacheproxy.storage.s3.options import Abilities, S3Options
from cacheproxy.storage.s3.requests import Request, S3Requests
from cacheproxy.storage.s3.signing import Signer
from cacheproxy.storage.s3.stream import S3Stream
from cacheproxy.storage.s3.upload import S3Upload, uploading

_CONNECTIONS: Final = 256
_CONNECT_SECONDS: Final = 5
_READ_BUFFER: Final = 256 << 10


class S3Bucket:
    """See `Bucket` for the promises. Made by `open_s3`."""

    local = False

    def __init__(
        self,
        requests: S3Requests,
        public: S3Requests,
        abilities: Abilities,
        conditions: int | None = None,
    ) -> None:
        self._requests = requests
        self._public = public
        self._abilities = abilities
        self._objects = S3Objects(
            requests, None if abilities.conditional_writes else Conditions(conditions)
        )

    @property
    def options(self) -> S3Options:
        return self._requests.options

    def explain(self, error: Unavailable) -> str:
        """What to tell who configures the bucket, in one sentence."""
        return explain(error, self.options)

    async def head(self, key: str) -> Head | None:
        found = await self._objects.look(key)
        if found is None:
            return None
        return Head(int(found.headers["Content-Length"]), pusher_in(found.headers))

    async def read(self, key: str, known: Stored | None = None) -> Stored | None:
        return await self._objects.read(key, known)

    async def open(self, key: str, part: ByteRange | None = None) -> S3Stream | None:
        return await self._objects.open(key, part)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        await self._objects.put(key, data, metadata, match)

    def upload(
        self, path: str, key: str, length: int | None, pusher: str = ""
    ) -> AbstractAsyncContextManager[Upload]:
        upload = S3Upload(self._objects, path, key, length, pusher)
        return uploading(upload, self._objects.background)

    async def join(self, parts: Sequence[Listed], key: str, pusher: str = "") -> None:
        await join(self._objects, parts, key, pusher)

    async def delete(self, key: str, *, match: Match | None = None) -> None:
        await self._objects.delete(key, match)

    async def deletion(self, key: str, seconds: int) -> Callable[[], Awaitable[None]]:
        """The signature is what ends in time, whenever the request arrives."""
        return await self._objects.deletion(key, seconds)

    async def list(
        self, prefix: str, *, after: str = "", folders: bool = False
    ) -> AsyncIterator[Listed]:
        root = self.options.prefix
        listing = listed if self._abilities.flat else walked
        async for found in listing(self._requests, root + prefix, root + after, folders):
            yield replace(found, key=found.key.removeprefix(root))

    async def now(self) -> float:
        return await self._objects.now()

    async def ping(self) -> None:
        """Read, not head: only a body says that it is the bucket that is not there."""
        await self._objects.read(FORMAT_KEY, None)

    async def sweep(self, seconds: float) -> int:
        return await sweep(self._requests, self.options.prefix, seconds)

    async def url(self, key: str, seconds: int) -> str | None:
        """Whether the object is there is not asked."""
        request = Request("GetObject", {"Key": self._objects.name(key)}, 0)
        return await self._public.presign(request, seconds)

    async def close(self) -> None:
        await self._objects.background.end()


@asynccontextmanager
async def open_s3(
    options: S3Options,
    abilities: Abilities,
    observe: Observe | None = None,
    conditions: int | None = None,
) -> AsyncIterator[S3Bucket]:
    """The bucket of `options`, which has these abilities. Nothing is asked of it yet.

    Without conditional writes it keeps conditions itself, so that no other server may write; only
    processes that share the descriptor `conditions` may.

    Raises:
        StorageInvalid: the options are not what S3 is reached with.
    """
    async with AsyncExitStack() as stack:
        client, signer = await stack.enter_async_context(_client(options, options.endpoint_url))
        proxy, login = _proxy(client.meta.endpoint_url)
        session = await stack.enter_async_context(_session(options, proxy))
        requests = public = S3Requests(options, client, signer, session, login, observe)
        if (endpoint_url := options.public_endpoint_url) is not None:
            client, signer = await stack.enter_async_context(_client(options, endpoint_url))
            public = S3Requests(options, client, signer, session, login)
        bucket = S3Bucket(requests, public, abilities, conditions)
        stack.push_async_callback(bucket.close)
        yield bucket


@asynccontextmanager
async def _client(
    options: S3Options, endpoint_url: str | None
) -> AsyncIterator[tuple[Any, Signer]]:
    session = get_session()
    chain = Chain(session, options.region)
    session.register_component("credential_provider", chain)
    making = session.create_client("s3", **_client_params(options, endpoint_url))
    try:
        client = await making.__aenter__()
    except (BotoCoreError, ValueError) as error:
        raise StorageInvalid(f"S3 cannot be used like this: {error}") from error
    try:
        yield client, Signer(client, await session.get_credentials(), options.bucket)
    finally:
        await chain.close()
        await making.__aexit__(None, None, None)


def _session(options: S3Options, proxy: URL | None) -> aiohttp.ClientSession:
    ca_file = _ca_file(options)
    try:
        trust = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise StorageInvalid(f"{ca_file} holds no certificates") from error
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=trust),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECONDS, sock_read=options.stall_seconds
        ),
        proxy=proxy,
        headers={"Accept-Encoding": "identity"},
        skip_auto_headers=("Content-Type", "User-Agent"),
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_once,),
    )


def _proxy(endpoint_url: str) -> tuple[URL | None, Mapping[str, str]]:
    """By whom botocore sends requests to this URL, and the password for that: in a header, for
    failures tell the address. aiohttp would look for it at each request."""
    configured = ProxyConfiguration(get_environ_proxies(endpoint_url))
    if (found := configured.proxy_url_for(endpoint_url)) is None:
        return None, {}
    return URL(found).with_user(None), configured.proxy_headers_for(found)


def _ca_file(options: S3Options) -> str | None:
    """Where botocore looks too: in what is set for AWS."""
    try:
        found: str | None = options.ca_file or get_session().get_config_variable("ca_bundle")
    except BotoCoreError as error:
        raise StorageInvalid(f"S3 cannot be used like this: {error}") from error
    return found


async def _once(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again by itself.

    It does so when a connection from the pool breaks, with a body that is used up, and a write on
    condition that is sent twice unseen fails by its own success.
    """
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError("the connection broke") from error


def _client_params(options: S3Options, endpoint_url: str | None) -> dict[str, Any]:
    """How aiobotocore makes a client. Retries and checksums are ours, so it has none."""
    config = AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path" if options.path_style else "virtual"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
        max_pool_connections=_CONNECTIONS,
        connect_timeout=_CONNECT_SECONDS,
        # A copy inside the bucket is silent for minutes; every call has a time limit of ours.
        read_timeout=24 * 3600,
        warm_up_loader_caches=True,
    )
    return {
        "endpoint_url": endpoint_url,
        "region_name": options.region,
        "verify": options.ca_file,
        "config": config,
    }
