"""S3 gone and back, and clients that leave or do not read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cacheproxy.api import health
from cacheproxy.storage.s3.parts import MIB
from tests.api.wire import digest, raw
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

_BLOB = noise(200_000)
_COLD = noise(100_000, b"cold")
_LARGE = noise(8 * MIB)
_HASTY = {"read": 0.3, "write": 0.6}
# Less than S3 is waited for elsewhere.
_SOON = 8


@contextmanager
def _down(site: Site) -> Iterator[None]:
    """S3 is gone."""
    site.proxy.down()
    try:
        yield
    finally:
        site.proxy.up()


async def _status(client: Client, path: str) -> int:
    async with client.get(path) as answer:
        await answer.read()
        return answer.status


def _get(content: bytes) -> str:
    return f"GET /v2/ci/app/blobs/{digest(content)} HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_what_is_here_is_served_without_s3(site: Site) -> None:
    """By digest: a blob whole, a range and its size, and a manifest that was read lately."""
    body = image(_BLOB)
    async with site.replica() as replica:
        await push(replica.client, _BLOB)
        await tag(replica.client, "latest", body)
        with replica.hasty(**_HASTY), _down(site):
            await pull(replica.client, _BLOB)
            path = f"/v2/ci/app/blobs/{digest(_BLOB)}"
            async with replica.client.get(path, headers={"Range": "bytes=5-9"}) as answer:
                assert await told(answer, 206) == _BLOB[5:10]
            assert await look(replica.client, _BLOB)
            assert await get(replica.client, digest(body)) == body


async def test_without_s3_nothing_waits_long(site: Site) -> None:
    """What is not here, tags and pushes are refused in the time that is set, with 503; when S3 is
    back all goes on without a restart."""
    async with site.replica() as replica:
        client = replica.client
        async with site.replica() as other:
            await push(other.client, _COLD)
            await tag(other.client, "latest", image(_COLD))
        with replica.hasty(**_HASTY), _down(site):
            for act in (
                pull(client, _COLD),
                look(client, _COLD),
                get(client, "latest"),
                push(client, _BLOB),
                tag(client, "new", image(_BLOB)),
            ):
                began = time.monotonic()
                with pytest.raises(Retry):
                    await act
                assert time.monotonic() - began < _SOON

        await pull(client, _COLD)
        assert await get(client, "latest") == image(_COLD)
        await push(client, _BLOB)
        await tag(client, "new", image(_BLOB))


async def test_readiness_follows_s3(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica without S3 says that it is not ready until S3 is back; it is alive all the same."""
    monkeypatch.setattr(health, "_PING_SECONDS", 0.0)
    async with site.replica() as replica:
        assert await _status(replica.client, "/readyz") == 200
        with replica.hasty(**_HASTY), _down(site):
            assert await _status(replica.client, "/readyz") == 503
            assert await _status(replica.client, "/healthz") == 200
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
