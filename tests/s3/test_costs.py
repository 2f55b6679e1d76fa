"""What it may cost: requests to S3 of what clients do, background polls apart."""

from __future__ import annotations

import asyncio
from collections import Counter

from cacheproxy.storage.s3.options import S3Options
from cacheproxy.storage.s3.parts import MIB
from tests.api.wire import digest
from tests.s3.calls import Kind
from tests.s3.flows import Site, begin, get, image, look, noise, patch, pull, push, put, tag, told
from tests.storage.s3_buckets import PART

_BLOB = noise(300_000)


def _costs(site: Site) -> dict[tuple[str, Kind], int]:
    """The requests since the last time, but for those of the polls."""
    found = Counter(site.proxy.counts)
    found.pop(("ListObjectsV2", "deleted"), None)
    site.proxy.reset()
    return dict(found)


async def test_a_blob_that_fits_a_part_is_sent_once(site: Site) -> None:
    """At most 2 requests: its bytes, and a look whether it was hidden. No byte is sent twice:
    bodies are counted here, and signatures and checksums travel in headers and addresses."""
    async with site.replica() as replica:
        site.proxy.reset()
        await push(replica.client, _BLOB)

        assert site.proxy.bytes_sent == len(_BLOB)
        assert _costs(site) == {("PutObject", "blob"): 1, ("GetObject", "deleted"): 1}


async def test_a_large_blob_is_its_parts_and_three(site: Site) -> None:
    """So 100 MiB are at most 10 requests, in parts of the default size; no byte is sent twice but
    for the list of the parts, which is some hundred bytes for each."""
    blob = noise(6 * PART + PART // 4)
    async with site.replica() as replica:
        site.proxy.reset()
        await push(replica.client, blob)

        assert 0 < site.proxy.bytes_sent - len(blob) < 7 * 200
        assert _costs(site) == {
            ("CreateMultipartUpload", "blob"): 1,
            ("UploadPart", "blob"): 7,
            ("CompleteMultipartUpload", "blob"): 1,
            ("GetObject", "deleted"): 1,
        }
    assert -(-100 * MIB // S3Options("bucket").part_bytes) <= 7


async def test_a_look_at_a_blob_is_one_request_once(site: Site) -> None:
    """None where it was pushed, one where it was not, however many look at once, then none."""
    async with site.replica() as pusher, site.replica() as cold:
        await push(pusher.client, _BLOB)
        site.proxy.reset()
        assert await look(pusher.client, _BLOB)
        assert _costs(site) == {}

        assert all(await asyncio.gather(*(look(cold.client, _BLOB) for _ in range(50))))
        assert _costs(site) == {("HeadObject", "blob"): 1}
        assert await look(cold.client, _BLOB)
        assert _costs(site) == {}


async def test_a_manifest_of_100_layers_is_at_most_6_requests(site: Site) -> None:
    """No layer is looked up. A tag that is new, or was just looked at, is written at once."""
    layers = [b"%d" % number for number in range(100)]
    apart = {("PutObject", "manifest"): 1, ("GetObject", "deleted"): 1}
    async with site.replica() as replica:
        await asyncio.gather(*(push(replica.client, layer) for layer in layers))
        for number, looked_at in enumerate([False, True]):
            if looked_at:
                await get(replica.client, "latest")
            site.proxy.reset()
            await tag(replica.client, "latest", image(*layers, number=number))
            assert _costs(site) == apart | {("PutObject", "tag"): 1}
        site.proxy.reset()
        await tag(replica.client, "latest", image(*layers, number=2))

        assert _costs(site) == apart | {("PutObject", "tag"): 2, ("GetObject", "tag"): 1}


async def test_a_warm_pull_is_free_by_digest_and_one_question_by_tag(site: Site) -> None:
    """The tag is asked for on condition that it has moved, so its record does not come again."""
    body = image(_BLOB)
    async with site.replica() as replica:
        await push(replica.client, _BLOB)
        await tag(replica.client, "latest", body)
        await get(replica.client, "latest")
        site.proxy.reset()
        assert await get(replica.client, digest(body)) == body
        await pull(replica.client, _BLOB)
        assert _costs(site) == {}

        assert await get(replica.client, "latest") == body
        [call] = [call for call in site.proxy.calls if call.kind == "tag"]
        assert call.headers["If-None-Match"]
        assert (call.status, call.received) == (304, 0)
        assert _costs(site) == {("GetObject", "tag"): 1}


async def test_a_cold_blob_is_read_once_however_many_ask(site: Site) -> None:
    """And then not again."""
    async with site.replica() as pusher, site.replica() as cold:
        await push(pusher.client, _BLOB)
        site.proxy.reset()
        await asyncio.gather(*(pull(cold.client, _BLOB) for _ in range(20)))

        assert site.proxy.bytes_received == len(_BLOB)
        assert _costs(site) == {("GetObject", "blob"): 1}
        await pull(cold.client, _BLOB)
        assert _costs(site) == {}


async def test_a_range_of_a_cold_blob_is_read_alone(site: Site) -> None:
    """Of the blob no other byte comes; a look tells how large it is."""
    async with site.replica() as pusher, site.replica() as cold:
        await push(pusher.client, _BLOB)
        site.proxy.reset()
        path, headers = f"/v2/ci/app/blobs/{digest(_BLOB)}", {"Range": "bytes=1000-1099"}
        async with cold.client.get(path, headers=headers) as answer:
            assert await told(answer, 206) == _BLOB[1000:1100]

        assert site.proxy.bytes_received == 100
        assert _costs(site) == {("HeadObject", "blob"): 1, ("GetObject", "blob"): 1}


async def test_chunks_are_read_once_and_copied_by_s3(site: Site) -> None:
    """Uploads by PATCH are read again to be verified; what is large enough is not sent again."""
    first, second = noise(PART + 1), noise(1000, b"second")
    async with site.replica() as replica:
        location = await begin(replica.client)
        for chunk in (first, second):
            location = await patch(replica.client, location, chunk)
        site.proxy.reset()
        await put(replica.client, location, first + second, b"")

        assert site.proxy.bytes_sent < 1000
        costs = _costs(site)
        assert costs[("UploadPartCopy", "blob")] == 2
        assert costs[("GetObject", "upload")] == 2
