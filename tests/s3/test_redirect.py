"""Large blobs fetched from S3 by the clients themselves."""

from __future__ import annotations

import secrets
from pathlib import Path

import aiohttp
from yarl import URL

from tests.api.wire import digest
from tests.real.seaweed import SeaweedFS
from tests.s3.flows import Client, Site, look, noise, pull, push
from tests.s3.proxy import S3Proxy

_LARGE = noise(100_000)
_SMALL = noise(99_999)
_FROM = 100_000


async def _location(client: Client, content: bytes, **headers: str) -> URL:
    """Where a GET is redirected to."""
    path = f"/v2/ci/app/blobs/{digest(content)}"
    async with client.get(path, headers=headers, allow_redirects=False) as answer:
        assert (answer.status, await answer.read()) == (307, b"")
        return URL(answer.headers["Location"], encoded=True)


async def _fetch(location: URL, **headers: str) -> tuple[int, bytes]:
    """From S3, as somebody who knows no key."""
    async with aiohttp.ClientSession() as stranger, stranger.get(location, headers=headers) as got:
        return got.status, await got.read()


async def test_a_large_blob_is_fetched_elsewhere(site: Site) -> None:
    """Whole and by range, by an address that needs no key; none of it comes through here."""
    async with site.replica(s3__redirect_bytes=_FROM) as replica:
        await push(replica.client, _LARGE)

        location = await _location(replica.client, _LARGE)
        assert await _fetch(location) == (200, _LARGE)
        location = await _location(replica.client, _LARGE, Range="bytes=10-19")
        assert await _fetch(location, Range="bytes=10-19") == (206, _LARGE[10:20])


async def test_a_client_that_follows_has_the_blob(site: Site) -> None:
    """Most clients do so by themselves."""
    async with site.replica(s3__redirect_bytes=_FROM) as replica:
        await push(replica.client, _LARGE)
        await pull(replica.client, _LARGE)


async def test_what_is_asked_about_or_small_is_answered_here(site: Site) -> None:
    """HEAD is never redirected, nor is a blob below the size, nor one that is not there."""
    async with site.replica(s3__redirect_bytes=_FROM) as replica:
        await push(replica.client, _LARGE)
        await push(replica.client, _SMALL)

        assert await look(replica.client, _LARGE)
        for content, status in ((_SMALL, 200), (b"absent", 404)):
            path = f"/v2/ci/app/blobs/{digest(content)}"
            async with replica.client.get(path, allow_redirects=False) as answer:
                assert answer.status == status


async def test_nothing_is_redirected_unless_that_is_set(site: Site) -> None:
    """By default every byte comes through here."""
    async with site.replica() as replica:
        await push(replica.client, _LARGE)
        path = f"/v2/ci/app/blobs/{digest(_LARGE)}"
        async with replica.client.get(path, allow_redirects=False) as answer:
            assert (answer.status, await answer.read()) == (200, _LARGE)


async def test_an_address_opens_one_blob_to_readers_for_a_while(site: Site) -> None:
    """S3 refuses one that was edited, another method, and one that is out of date."""
    async with site.replica(s3__redirect_bytes=_FROM) as replica:
        await push(replica.client, _LARGE)
        await push(replica.client, _SMALL)
        location = await _location(replica.client, _LARGE)
        assert int(location.query["X-Amz-Expires"]) == 3600

        edited = str(location).replace(digest(_LARGE)[7:], digest(_SMALL)[7:])
        signed = location.query["X-Amz-Signature"]
        forged = str(location).replace(signed, secrets.token_hex(len(signed) // 2))
        old = location.query["X-Amz-Date"]
        early = str(location).replace(f"X-Amz-Date={old}", "X-Amz-Date=20200101T000000Z")
        for wrong in (edited, forged, early):
            status, _ = await _fetch(URL(wrong, encoded=True))
            assert status == 403
        async with aiohttp.ClientSession() as stranger, stranger.delete(location) as answer:
            assert answer.status == 403
        assert await _fetch(location) == (200, _LARGE)


async def test_clients_are_sent_to_where_they_reach_s3(
    seaweed: SeaweedFS, proxy: S3Proxy, tmp_path: Path
) -> None:
    """Signed for the public host, though the server itself uses another one."""
    async with (
        Site.opened(seaweed, proxy, tmp_path, public_endpoint_url=seaweed.endpoint) as site,
        site.replica(s3__redirect_bytes=_FROM) as replica,
    ):
        await push(replica.client, _LARGE)
        location = await _location(replica.client, _LARGE)

        assert str(location.origin()) == seaweed.endpoint != proxy.url
        assert await _fetch(location) == (200, _LARGE)
