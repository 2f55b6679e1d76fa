"""What cache tags cost: requests to S3, background polls apart."""

from __future__ import annotations

import asyncio
from collections import Counter

from cacheproxy.buildkit.manifest import CacheManifest, read_manifest
from tests.api.wire import digest
from tests.registry.exports import Export, export
from tests.s3.calls import Kind
from tests.s3.flows import Client, Site, get, push, tag, told

_COUNTED = ("blob", "manifest", "tag", "deleted")

_ONE, _TWO = export("a", "b"), export("a", "c")
_BLOBS = 4  # the layers of both, and the config of their union


def _costs(site: Site) -> dict[tuple[str, Kind], int]:
    """The requests since the last time, but for those of the polls."""
    found = Counter(
        {
            call: number
            for call, number in site.proxy.counts.items()
            if call[1] in _COUNTED and call[0] != "ListObjectsV2"
        }
    )
    site.proxy.reset()
    return dict(found)


async def _push(client: Client, *exports: Export) -> None:
    for each in exports:
        for content in (*each.layers.values(), each.written.config):
            await push(client, content)
        await tag(client, "cache", each.written.manifest)


async def _import(client: Client) -> bytes:
    """Read a cache as BuildKit does: HEAD by tag, then the manifest by digest, then the config."""
    async with client.head("/v2/ci/app/manifests/cache") as answer:
        await told(answer, 200)
        found = answer.headers["Docker-Content-Digest"]
    manifest = await get(client, found)
    assert manifest is not None
    assert digest(manifest) == found
    about = read_manifest(manifest)
    assert isinstance(about, CacheManifest)
    async with client.get(f"/v2/ci/app/blobs/{about.config_digest}") as answer:
        assert digest(await told(answer, 200)) == about.config_digest
    return manifest


async def test_an_unchanged_cache_costs_one_question(site: Site) -> None:
    """Whether the tag has moved; its record does not come again once it was read."""
    async with site.replica() as replica:
        await _push(replica.client, _ONE, _TWO)
        await _import(replica.client)  # makes the union
        union = await _import(replica.client)
        site.proxy.reset()

        assert await _import(replica.client) == union
        [call] = [call for call in site.proxy.calls if call.kind == "tag"]
        assert (call.status, call.received) == (304, 0)
        assert _costs(site) == {("GetObject", "tag"): 1}


async def test_an_export_costs_as_much_as_an_image(site: Site) -> None:
    """Nothing is merged as long as nobody asks."""
    async with site.replica() as replica:
        await _push(replica.client, _ONE)
        await push(replica.client, _TWO.layers["c"])
        await push(replica.client, _TWO.written.config)
        await get(replica.client, "cache")
        site.proxy.reset()
        await tag(replica.client, "cache", _TWO.written.manifest)

        costs = _costs(site)
        assert costs.pop(("GetObject", "tag"), 0) <= 1  # the record was changed by the look
        assert costs.pop(("PutObject", "tag")) <= 2
        assert costs == {("PutObject", "manifest"): 1, ("GetObject", "deleted"): 1}


async def test_a_union_is_made_of_what_is_at_hand(site: Site) -> None:
    """Where its sources were pushed, nothing of them is read: it is stored, and the tag told."""
    async with site.replica() as replica:
        await _push(replica.client, _ONE, _TWO)
        site.proxy.reset()
        found = await asyncio.gather(*(get(replica.client, "cache") for _ in range(20)))

        assert len(set(found)) == 1
        costs = _costs(site)
        asked = costs.pop(("GetObject", "tag"))
        assert 20 <= asked <= 21
        assert costs.pop(("PutObject", "tag")) <= 2  # the first by what was known before the push
        assert costs == {
            ("PutObject", "manifest"): 1,
            ("PutObject", "blob"): 1,
            ("GetObject", "deleted"): 1,
        }


async def test_another_replica_looks_for_all_that_a_union_names_once(site: Site) -> None:
    """It reads nothing of the sources, however many ask at once."""
    async with site.replica() as pusher, site.replica() as cold:
        await _push(pusher.client, _ONE, _TWO)
        union = await _import(pusher.client)
        site.proxy.reset()
        assert await asyncio.gather(*(get(cold.client, "cache") for _ in range(20))) == [union] * 20

        assert _costs(site) == {
            ("GetObject", "tag"): 20,
            ("GetObject", "manifest"): 1,
            ("HeadObject", "blob"): _BLOBS,
        }
        await _import(cold.client)
        assert _costs(site) == {("GetObject", "tag"): 1, ("GetObject", "blob"): 1}


async def test_a_replica_reads_each_source_once_to_make_a_union(site: Site) -> None:
    """Its manifest and its config, and looks for the layers."""
    async with site.replica() as pusher, site.replica() as cold:
        await _push(pusher.client, _ONE, _TWO)
        site.proxy.reset()
        await _import(cold.client)

        assert _costs(site) == {
            ("GetObject", "tag"): 1,
            ("GetObject", "manifest"): 2,
            ("GetObject", "blob"): 2,
            ("HeadObject", "blob"): 3 + 2,
            ("PutObject", "manifest"): 1,
            ("PutObject", "blob"): 1,
            ("GetObject", "deleted"): 1,
            ("PutObject", "tag"): 1,
        }


async def test_what_is_due_is_looked_for_again_and_nothing_else(site: Site) -> None:
    """When it is too long ago that its layers were seen."""
    async with site.replica(cache__verify_seconds=1e-9) as replica:
        await _push(replica.client, _ONE, _TWO)
        await _import(replica.client)
        site.proxy.reset()
        await _import(replica.client)

        assert _costs(site) == {("GetObject", "tag"): 1, ("HeadObject", "blob"): _BLOBS}
