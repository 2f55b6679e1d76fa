"""S3 gone and back, and clients that leave or do not read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cacheproxy.api import health
from cacheproxy.storage.s3.parts import MIB
from tests.api.wire import digest, raw
from tests.real.seaweed import SeaweedFS
from tests.s3.faults import Fault, What
from tests.s3.flows import (
    Client,
    Retry,
    Site,
    get,
    image,
    look,
    noise,
    pull,
    push,
    tag,
    told,
    until,
)
from tests.s3.proxy import S3Proxy

_BLOB = noise(200_000)
_COLD = noise(100_000, b"cold")
_LARGE = noise(8 * MIB)
_READ_SECONDS, _WRITE_SECONDS = 0.3, 0.6


@pytest.fixture
async def hasty(seaweed: SeaweedFS, proxy: S3Proxy, tmp_path: Path) -> AsyncIterator[Site]:
    """A site of which S3 is not waited for as long as elsewhere."""
    times = {"read_seconds": _READ_SECONDS, "write_seconds": _WRITE_SECONDS}
    async with Site.opened(seaweed, proxy, tmp_path, **times) as site:
        yield site


async def _status(client: Client, path: str) -> int:
    async with client.get(path) as answer:
        await answer.read()
        return answer.status


def _get(content: bytes) -> str:
    return f"GET /v2/ci/app/blobs/{digest(content)} HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_what_is_here_is_served_without_s3(hasty: Site) -> None:
    """By digest: a blob whole, a range and its size, and a manifest that was read lately."""
    body = image(_BLOB)
    async with hasty.replica() as replica:
        await push(replica.client, _BLOB)
        await tag(replica.client, "latest", body)
        hasty.proxy.down()

        await pull(replica.client, _BLOB)
        path = f"/v2/ci/app/blobs/{digest(_BLOB)}"
        async with replica.client.get(path, headers={"Range": "bytes=5-9"}) as answer:
            assert await told(answer, 206) == _BLOB[5:10]
        assert await look(replica.client, _BLOB)
        assert await get(replica.client, digest(body)) == body


async def test_without_s3_nothing_waits_long(hasty: Site) -> None:
    """What is not here, tags and pushes are refused in the time that is set, with 503; when S3 is
    back all goes on without a restart."""
    async with hasty.replica() as replica:
        client = replica.client
        async with hasty.replica() as other:
            await push(other.client, _COLD)
            await tag(other.client, "latest", image(_COLD))
        hasty.proxy.down()

        for act, seconds in (
            (pull(client, _COLD), _READ_SECONDS),
            (look(client, _COLD), _READ_SECONDS),
            (get(client, "latest"), _READ_SECONDS),
            (push(client, _BLOB), _WRITE_SECONDS),
            (tag(client, "new", image(_BLOB)), _WRITE_SECONDS),
        ):
            began = time.monotonic()
            with pytest.raises(Retry):
                await act
            assert time.monotonic() - began < seconds + 1
        hasty.proxy.up()

        await pull(client, _COLD)
        assert await get(client, "latest") == image(_COLD)
        await push(client, _BLOB)
        await tag(client, "new", image(_BLOB))


async def test_readiness_follows_s3(hasty: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica without S3 says that it is not ready until S3 is back; it is alive all the same."""
    monkeypatch.setattr(health, "_PING_SECONDS", 0.0)
    async with hasty.replica() as replica:
        assert await _status(replica.client, "/readyz") == 200
        hasty.proxy.down()
        assert await _status(replica.client, "/readyz") == 503
        assert await _status(replica.client, "/healthz") == 200
        hasty.proxy.up()
        assert await _status(replica.client, "/readyz") == 200


async def test_a_client_that_leaves_stops_no_other(site: Site) -> None:
    """The one that came first leaves in the middle; the other gets all, by the same request."""
    async with site.replica() as pusher, site.replica() as cold:
        await push(pusher.client, _BLOB)
        site.proxy.reset()
        site.proxy.fail(Fault("GetObject", "blob", 1, What.STALL))
        first = asyncio.create_task(pull(cold.client, _BLOB))
        await until(lambda: site.proxy.counts[("GetObject", "blob")] == 1)
        second = asyncio.create_task(pull(cold.client, _BLOB))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        site.proxy.release()

        await second
        assert site.proxy.counts[("GetObject", "blob")] == 1


@pytest.mark.parametrize("leaves", [False, True], ids=["slow", "dead"])
async def test_a_client_that_reads_nothing_holds_no_connection(site: Site, leaves: bool) -> None:
    """The blob comes as fast as S3 and the disk are; it is there for the next one."""
    async with site.replica() as pusher, site.replica() as cold:
        await push(pusher.client, _LARGE)
        site.proxy.reset()
        async with raw(cold.client) as slow:
            await slow.send(_get(_LARGE))
            await until(lambda: site.proxy.counts[("GetObject", "blob")] == 1)
            if not leaves:
                await until(lambda: cold.entry(_LARGE).exists())
        await until(lambda: cold.entry(_LARGE).exists())

        [call] = [call for call in site.proxy.calls if call.kind == "blob"]
        assert call.over
        assert call.received == len(_LARGE)
        await pull(cold.client, _LARGE)
        assert site.proxy.counts[("GetObject", "blob")] == 1
