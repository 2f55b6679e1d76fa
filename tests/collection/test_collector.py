"""Collection: what is deleted and when, and what never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.errors import BlobUnknown, ManifestBlobUnknown
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.reference import Tag
from tests.collection.rooms import APP, LEASE, Store, found, image, push, tag

MORE = 3600.0


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "spool")


async def test_what_no_tag_leads_to_goes_after_two_leases_and_not_before(store: Store) -> None:
    """One until it is condemned, one as long as somebody may have been promised it."""
    replica = await store.replica()
    await push(replica, b"garbage")
    store.time.now += LEASE - 10
    assert (await store.collect()).condemned == 0
    store.time.now += 20
    assert (await store.collect()).condemned == 1
    store.time.now += LEASE
    assert (await store.collect()).deleted == 0
    assert store.has(b"garbage")
    store.time.now += MORE

    assert (await store.collect()).deleted == 1
    assert not store.has(b"garbage")
    assert store.batches == []


async def test_what_a_tag_leads_to_stays(store: Store) -> None:
    """With its layers, for ever."""
    replica = await store.replica()
    await push(replica, b"layer")
    await tag(replica, "latest", image(b"layer"))
    for _ in range(4):
        store.time.now += LEASE + MORE
        await store.collect()

    assert store.has(b"layer")
    assert await found(replica, Tag("latest"))


async def test_what_a_tag_left_goes_with_its_layers(store: Store) -> None:
    """Layers that another image has stay."""
    replica = await store.replica()
    for layer in (b"old", b"new", b"both"):
        await push(replica, layer)
    old = await tag(replica, "latest", image(b"old", b"both"))
    new = await tag(replica, "latest", image(b"new", b"both"))
    for _ in range(3):
        store.time.now += LEASE + MORE
        await store.collect()
    replica = await store.replica()

    assert [await found(replica, each) for each in (old, new)] == [False, True]
    assert [store.has(each) for each in (b"old", b"new", b"both")] == [False, True, True]


async def test_a_promise_rescues(store: Store) -> None:
    """Who is told that a blob exists finds it for another lease."""
    replica = await store.replica()
    digest = await push(replica, b"promised")
    store.time.now += LEASE + MORE
    await store.collect()
    store.time.now += LEASE
    await replica.blobs.size(APP, digest)
    assert store.batches == []
    store.time.now += MORE
    await store.collect()
    store.time.now += LEASE

    await store.collect()
    assert store.has(b"promised")


async def test_a_manifest_rescues_what_it_refers_to(store: Store) -> None:
    """Though nobody asked for its layers."""
    replica = await store.replica()
    await push(replica, b"layer")
    store.time.now += LEASE + MORE
    await store.collect()
    await replica.condemned.poll()
    await tag(replica, "latest", image(b"layer"))
    store.time.now += LEASE + MORE
    await store.collect()

    assert store.has(b"layer")


async def test_what_is_doomed_is_absent_and_no_image_can_refer_to_it(store: Store) -> None:
    """It may be deleted at any moment."""
    replica = await store.replica()
    digest = await push(replica, b"layer")
    store.time.now += LEASE + MORE
    await store.collect()
    await replica.condemned.poll()
    store.time.now += LEASE + MORE
    collector = store.collector()

    async def stop(call: str, key: str) -> None:
        if call == "deletion":
            raise Killed

    store.bucket.step = stop
    with pytest.raises(Killed):
        await collector.collect()

    assert store.has(b"layer")
    with pytest.raises(BlobUnknown):
        await replica.blobs.size(APP, digest)
    with pytest.raises(ManifestBlobUnknown):
        await tag(replica, "latest", image(b"layer"))
    assert not await found(replica, Tag("latest"))
    assert digest == digest_of(b"layer")
