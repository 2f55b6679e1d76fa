"""Several replicas on one bucket: every one serves every request."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cacheproxy import upkeep
from tests.api.wire import digest
from tests.real.seaweed import SeaweedFS
from tests.s3.flows import (
    Client,
    Replica,
    Site,
    begin,
    delete,
    get,
    image,
    look,
    noise,
    patch,
    pieces,
    pull,
    push,
    put,
    tag,
)
from tests.s3.proxy import S3Proxy
from tests.storage.s3_buckets import PART

_BLOB = noise(1000)


async def _replicas(stack: AsyncExitStack, site: Site, number: int) -> list[Replica]:
    return [await stack.enter_async_context(site.replica()) for _ in range(number)]


async def _patch_at(client: Client, location: str, offset: int, chunk: bytes) -> int:
    headers = {"Content-Range": f"{offset}-{offset + len(chunk) - 1}"}
    async with client.patch(location, data=pieces(chunk), headers=headers) as answer:
        await answer.read()
        return answer.status


async def test_an_upload_goes_on_at_any_replica(
    seaweed: SeaweedFS, proxy: S3Proxy, tmp_path: Path
) -> None:
    """PATCH, PATCH and PUT at three of them; S3 copies all but the small chunk, a chunk that is
    larger than one copy in several, and the blob is right."""
    large, small = noise(2 * PART + 1000), noise(1000, b"small")
    async with (
        Site.opened(seaweed, proxy, tmp_path, copy_bytes=PART) as site,
        AsyncExitStack() as stack,
    ):
        first, second, third = await _replicas(stack, site, 3)
        location = await begin(first.client)
        location = await patch(first.client, location, small)
        location = await patch(second.client, location, large)
        for replica in (first, second, third):
            async with replica.client.get(location) as answer:
                assert (answer.status, answer.headers["Range"]) == (204, f"0-{PART * 2 + 1999}")
        proxy.reset()
        await put(third.client, location, small + large, b"")

        assert proxy.counts[("UploadPartCopy", "blob")] >= 1
        assert proxy.counts[("PutObject", "blob")] == 0
        assert proxy.bytes_sent < PART + 2000
        await pull(first.client, small + large)


async def test_a_chunk_larger_than_a_copy_is_copied_in_several(
    seaweed: SeaweedFS, proxy: S3Proxy, tmp_path: Path
) -> None:
    """As those beyond 5 GiB are; none of it is sent again."""
    large = noise(4 * PART + 1000)
    async with (
        Site.opened(seaweed, proxy, tmp_path, copy_bytes=2 * PART) as site,
        AsyncExitStack() as stack,
    ):
        first, second = await _replicas(stack, site, 2)
        location = await patch(first.client, await begin(first.client), large)
        proxy.reset()
        await put(second.client, location, large, b"")

        assert proxy.counts[("UploadPartCopy", "blob")] == 3
        assert proxy.bytes_sent < 2000
        await pull(first.client, large)


async def test_of_two_chunks_at_one_offset_one_is_taken(site: Site) -> None:
    """Whichever replicas they come to: one 202, one 416, and the upload has the one taken."""
    async with AsyncExitStack() as stack:
        first, second = await _replicas(stack, site, 2)
        for number in range(5):
            chunks = [b"%d first" % number, b"%d other" % number]
            location = await begin(first.client)
            statuses = await asyncio.gather(
                _patch_at(first.client, location, 0, chunks[0]),
                _patch_at(second.client, location, 0, chunks[1]),
            )
            assert sorted(statuses) == [202, 416]
            taken = chunks[statuses.index(202)]
            await put(first.client, f"{location}.chunks", taken, b"")
            await pull(second.client, taken)


async def test_a_tag_that_was_moved_is_moved_everywhere(site: Site) -> None:
    """As soon as the PUT is answered, at any replica, in turns."""
    async with AsyncExitStack() as stack:
        replicas = await _replicas(stack, site, 2)
        for number in range(20):
            body = image(number=number)
            await tag(replicas[number % 2].client, "latest", body)
            assert await get(replicas[(number + 1) % 2].client, "latest") == body


async def test_of_many_who_move_a_tag_one_is_last(site: Site) -> None:
    """All are answered, and all replicas agree which one it is."""
    async with AsyncExitStack() as stack:
        replicas = await _replicas(stack, site, 3)
        bodies = [image(number=number) for number in range(12)]
        await asyncio.gather(
            *(tag(replicas[n % 3].client, "latest", body) for n, body in enumerate(bodies))
        )

        found = {await get(replica.client, "latest") for replica in replicas}
        assert len(found) == 1
        assert found <= set(bodies)


async def test_a_blob_deleted_at_one_is_gone_at_others_with_the_next_poll(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was known there; and a push shows it again everywhere."""
    monkeypatch.setattr(upkeep, "_POLL_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        first, second = await _replicas(stack, site, 2)
        await push(first.client, _BLOB)
        assert await look(second.client, _BLOB)
        await delete(first.client, f"blobs/{digest(_BLOB)}")
        assert not await look(first.client, _BLOB)

        async with asyncio.timeout(60):
            while await look(second.client, _BLOB):
                pass
        await push(first.client, _BLOB)
        assert await look(second.client, _BLOB)
