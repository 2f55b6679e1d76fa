"""Collection: what is deleted and when, and what never is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from cacheproxy.collection import collector as module
from cacheproxy.collection.collector import Collector
from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.tier import Tier
from cacheproxy.errors import BlobUnknown, ManifestBlobUnknown, Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Tag
from cacheproxy.registry.batches import read_batch, write_batch
from cacheproxy.registry.registry import Registry
from cacheproxy.storage.bucket import Bucket, Head
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from tests.collection.promises import Document, index, referrer
from tests.collection.rooms import APP, LEASE, Store, found, image, push, tag
from tests.real.seaweed import SeaweedFS
from tests.registry.exports import TAG, Export, export
from tests.registry.rooms import TICKETS
from tests.storage.s3_buckets import opened

MORE = 3600.0
_KEEP = Policies()


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
    assert [read_batch(store.bucket.objects[key].data).keys for key in store.batches] == [()]
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


async def _push(replica: Registry, document: Document, name: str = "") -> Digest:
    reference = Tag(name) if name else document.digest
    data, media_type = document.data, document.media_type
    return (await replica.manifests.push(APP, reference, [], data, media_type)).digest


async def _export(replica: Registry, made: Export, name: Tag = TAG) -> Digest:
    for content in (*made.layers.values(), made.written.config):
        await push(replica, content)
    return await _push(replica, Document(made.written.manifest, made.written.media_type), name)


async def _cycles(store: Store, count: int, policies: Policies = _KEEP) -> None:
    for _ in range(count):
        store.time.now += LEASE + MORE
        await store.collect(policies)


async def test_referrers_stay_with_their_subject_and_go_with_it(store: Store) -> None:
    """Signatures and attestations have no tags of their own."""
    replica = await store.replica()
    subject = Document(image(b"layer"), OCI_MANIFEST)
    signature = referrer(subject, b"signature")
    for content in (b"layer", b"signature"):
        await push(replica, content)
    await _push(replica, subject, "latest")
    await _push(replica, signature)
    await _cycles(store, 3)
    assert store.has(b"signature")
    assert await found(await store.replica(), signature.digest)

    await replica.manifests.delete(APP, Tag("latest"))
    await _cycles(store, 3)
    left = [key for key in store.bucket.objects if not key.startswith("default/gc/")]
    assert left == []


async def test_children_of_an_index_stay(store: Store) -> None:
    replica = await store.replica()
    child = Document(image(b"layer"), OCI_MANIFEST)
    await push(replica, b"layer")
    await _push(replica, child)
    await _push(replica, index(child), "latest")
    await _cycles(store, 3)

    assert store.has(b"layer")
    assert await found(await store.replica(), child.digest)


@pytest.mark.parametrize("form", ["image", "index"])
async def test_a_cache_stays_with_its_sources(store: Store, form: str) -> None:
    """All that its tag leads to, whether it was served since or not."""
    replica = await store.replica()
    one = export("base", "one", form=form)  # type: ignore[arg-type]
    other = export("base", "other", form=form)  # type: ignore[arg-type]
    for each in (one, other):
        await _export(replica, each)
    await _cycles(store, 3)

    contents = [*one.layers.values(), *other.layers.values()]
    contents += [one.written.config, other.written.config]
    assert [content for content in contents if not store.has(content)] == []
    assert await found(await store.replica(), TAG)


async def test_a_union_that_was_replaced_stays_for_a_lease_and_goes(store: Store) -> None:
    """Whoever imports it may be slow; another one is what the tag leads to."""
    replica = await store.replica()
    for each in (export("one"), export("two")):
        await _export(replica, each)
    union = (await replica.manifests.get(APP, TAG)).digest
    await _cycles(store, 1)
    await replica.manifests.get(APP, TAG)
    await _export(replica, export("three"))
    assert (await replica.manifests.get(APP, TAG)).digest != union
    await store.collect()
    store.time.now += LEASE - MORE
    await store.collect()
    assert store.namespace.manifest(APP, union) in store.bucket.objects

    await _cycles(store, 2)
    assert store.namespace.manifest(APP, union) not in store.bucket.objects
    assert await found(await store.replica(), TAG)


async def test_what_retention_evicts_goes(store: Store) -> None:
    """With all that only it had."""
    replica = await store.replica()
    old, new = export("base", "old"), export("base", "new")
    await _export(replica, old, Tag("old"))
    await _cycles(store, 2)
    await _export(replica, new, Tag("new"))
    await _cycles(store, 3, Policies(Policy(cache_unused=2 * LEASE + 3 * MORE)))

    assert not store.has(old.layers["old"])
    assert store.has(new.layers["base"])


async def test_a_damaged_manifest_ends_the_cycle_and_nothing_is_deleted(store: Store) -> None:
    """It may have led to anything."""
    replica = await store.replica()
    await push(replica, b"garbage")
    await _cycles(store, 1)
    damaged = await tag(replica, "latest", image(b"layer"))
    key = store.namespace.manifest(APP, damaged)
    store.bucket.place(key, b"{", {"media-type": OCI_MANIFEST})
    store.time.now += LEASE + MORE
    with pytest.raises(Unavailable):
        await store.collect()
    assert store.has(b"garbage")


async def test_a_dry_cycle_changes_nothing_and_reports_the_same(store: Store) -> None:
    replica = await store.replica()
    policies = Policies(Policy(image_tags=1, untagged=60.0))
    await push(replica, b"first")
    for at in range(3):
        await _cycles(store, 1, policies)
        await push(replica, b"garbage %d" % at)
        await tag(replica, "a", image(b"layer a"))
        await tag(replica, f"b{at}", image(b"layer %d" % at))
        store.time.now += LEASE + MORE
        before = dict(store.bucket.objects)
        dry = await store.collector(policies).collect(dry=True)
        assert store.bucket.objects == before
        assert dry == await store.collect(policies)
        assert dry.condemned + dry.deleted + dry.tags_evicted > 0


async def test_no_more_is_condemned_than_replicas_can_know(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left has its turn later."""
    monkeypatch.setattr(module, "_CONDEMNED_KEYS", 4)
    monkeypatch.setattr(module, "_BATCH_KEYS", 3)
    monkeypatch.setattr(module, "_LISTED", 2)
    replica = await store.replica()
    contents = [b"garbage %d" % at for at in range(9)]
    for content in contents:
        await push(replica, content)
    store.time.now += LEASE + MORE
    assert (await store.collect()).condemned == 4
    assert len(store.batches) == 2
    assert (await store.collect()).condemned == 0
    await _cycles(store, 5)

    assert [content for content in contents if store.has(content)] == []


@pytest.mark.parametrize("effect", ["", "after "])
async def test_wherever_a_collector_dies_another_one_ends_it(tmp_path: Path, effect: str) -> None:
    """At each call to the bucket, before it and after it."""
    at = 0
    while await _dies(Store(tmp_path / "spool"), at, effect):
        at += 1
    assert at > 50


async def _dies(store: Store, at: int, effect: str) -> bool:
    """Whether collectors have made more than `at` calls, of which that was the last one."""
    replica = await store.replica()
    for content in (b"garbage", b"layer"):
        await push(replica, content)
    await tag(replica, "latest", image(b"layer"))
    await _push(replica, referrer(Document(image(b"gone"), OCI_MANIFEST), b"garbage"))
    calls = 0

    async def step(call: str, key: str) -> None:
        nonlocal calls
        if call.startswith("after ") == bool(effect):
            calls += 1
            if calls == at + 1:
                raise Killed

    died = False
    for _ in range(5):
        store.time.now += LEASE + MORE
        store.bucket.step = step
        try:
            await store.collect()
        except Killed:
            died = True
    left = [key for key in store.bucket.objects if key != store.namespace.collector()]
    assert len(left) == 3, "the tag, its manifest and its layer"
    return died


async def test_garbage_in_a_folder_goes_by_its_age(tmp_path: Path) -> None:
    """As files tell it."""
    bucket = FolderBucket(str(tmp_path))
    registry = await _registry(bucket, tmp_path)
    for content in (b"garbage", b"new", b"layer"):
        await push(registry, content)
    await tag(registry, "latest", image(b"layer"))
    key = Namespace().blob(digest_of(b"garbage"))
    os.utime(tmp_path / key, (0, time.time() - LEASE - MORE))
    report = await _collector(bucket, registry, LEASE).collect()
    assert report is not None
    assert (report.condemned, report.condemned_bytes) == (1, len(b"garbage"))
    [batch] = [each.key async for each in bucket.list(Namespace().batches())]
    written = read_batch((tmp_path / batch).read_bytes())
    long_ago = msgspec.structs.replace(written, since=time.time() - LEASE - MORE)
    (tmp_path / batch).write_bytes(write_batch(long_ago))
    report = await _collector(bucket, registry, LEASE).collect()

    assert report is not None
    assert report.deleted == 1
    assert [await bucket.head(Namespace().blob(digest_of(each))) for each in _CONTENTS] == [
        None,
        Head(len(b"new")),
        Head(len(b"layer")),
    ]
    assert [each.key async for each in bucket.list(Namespace().batches())] == []


_CONTENTS = (b"garbage", b"new", b"layer")


async def test_garbage_in_s3_goes(
    seaweed: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By requests that S3 itself lets expire. There is no lease here, and no slack."""
    monkeypatch.setattr(module, "SLACK_SECONDS", 0.0)
    async with opened(seaweed) as bucket:
        await bucket.put("format", b"1")  # whose answers tell the time
        registry = await _registry(bucket, tmp_path)
        for content in _CONTENTS:
            await push(registry, content)
        layers = image(b"layer", b"new")
        await tag(registry, "latest", layers)
        await _push(registry, referrer(Document(image(b"gone"), OCI_MANIFEST), b"garbage"))
        policies = Policies(Policy(untagged=0.0))
        for _ in range(3):
            time.sleep(1.1)  # noqa: ASYNC251  # S3 tells times in seconds
            await _collector(bucket, registry, 0.0, policies).collect()
        left = [each.key async for each in bucket.list("default/")]

    names = sorted(key.removeprefix("default/").partition("/")[0] for key in left)
    assert names == ["blobs", "blobs", "gc", "repositories", "repositories"]


async def _registry(bucket: Bucket, folder: Path) -> Registry:
    spools = SpoolFolder(str(folder / ".spool"))
    tier = None if bucket.local else Tier(str(folder / "tier"), 1 << 30)
    registry = Registry(bucket, Namespace(), Contents(bucket, spools, tier), TICKETS)
    await registry.condemned.poll()
    return registry


def _collector(
    bucket: Bucket, registry: Registry, lease: float, policies: Policies = _KEEP
) -> Collector:
    return Collector(bucket, Namespace(), registry.tags, policies, lease)
