"""Collection of a namespace beside another one in the same bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.collection.stats import gather_stats
from cacheproxy.collection.turn import turn
from cacheproxy.oci.reference import Tag
from cacheproxy.storage.layout import Namespace
from tests.collection.rooms import APP, LEASE, Store, image, push, tag


class _Pair:
    """The default namespace and another one, each with garbage and with an image."""

    def __init__(self, folder: Path) -> None:
        self.ours = Store(folder)
        self.theirs = Store(folder, Namespace("theirs"), self.ours)

    async def fill(self) -> None:
        for store in (self.ours, self.theirs):
            replica = await store.replica()
            for content in (b"garbage", b"layer"):
                await push(replica, content)
            await tag(replica, "image", image(b"layer"))

    def keys(self, store: Store) -> list[str]:
        """What there is of one, turns apart."""
        prefix = f"{store.namespace.name}/"
        found = [key for key in store.bucket.objects if key.startswith(prefix)]
        return [key for key in found if key != store.namespace.collector()]


@pytest.fixture
async def pair(tmp_path: Path) -> _Pair:
    pair = _Pair(tmp_path)
    await pair.fill()
    return pair


async def test_collection_of_one_leaves_the_other_as_it_is(pair: _Pair) -> None:
    """What is garbage in both goes from the one; the other's is there, and is not condemned."""
    before = pair.keys(pair.theirs)
    for _ in range(2):
        pair.ours.time.now += 2 * LEASE
        await pair.ours.collect()

    assert not pair.ours.has(b"garbage")
    assert pair.theirs.has(b"garbage")
    assert pair.keys(pair.theirs) == before
    assert pair.ours.has(b"layer")


async def test_what_leads_to_a_blob_keeps_it_in_its_own_namespace_only(pair: _Pair) -> None:
    """The same digest elsewhere is another object."""
    await (await pair.theirs.replica()).tags.delete(APP, Tag("image"))
    for store in (pair.ours, pair.theirs):
        for _ in range(2):
            store.time.now += 2 * LEASE
            await store.collect()

    assert (pair.ours.has(b"layer"), pair.theirs.has(b"layer")) == (True, False)


async def test_each_has_a_turn_of_its_own(pair: _Pair) -> None:
    """Who collects one of them is in nobody's way in the other."""
    bucket = pair.ours.bucket
    async with turn(bucket, pair.theirs.namespace.collector(), "somebody") as mine:
        assert mine
        assert await pair.theirs.collector().collect() is None
        assert await pair.ours.collector().collect() is not None


async def test_what_is_condemned_in_one_is_promised_in_the_other(pair: _Pair) -> None:
    """Its replicas know of no batch, and rescue nothing."""
    pair.ours.time.now += 2 * LEASE
    await pair.ours.collect()
    replica = await pair.theirs.replica()

    assert len(pair.ours.batches) == 1
    assert replica.condemned.nothing
    await push(replica, b"garbage")
    assert len(pair.ours.batches) == 1


async def test_each_is_counted_by_itself(pair: _Pair) -> None:
    """Stored twice, the same blob is no saving."""
    for store in (pair.ours, pair.theirs):
        stats = await gather_stats(store.bucket, store.namespace)
        assert (stats.all.tags, stats.blobs.count, stats.untagged.count) == (1, 2, 1)
