"""Statistics: every thing is counted as often as it is there."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

from cacheproxy.collection.stats import Count, Numbers, gather_stats
from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.manifest import OCI_INDEX, OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.storage.layout import Namespace
from tests.api.wire import digest, manifest
from tests.fakes import FaultyBucket
from tests.registry.exports import APP, TAG, Export, export
from tests.registry.rooms import Bytes, Rooms

_OTHER = Repository("ci/other")
_LAYER = b"a layer of an image"
_IMAGE = manifest(
    layers=[
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest(_LAYER),
            "size": len(_LAYER),
        }
    ]
)
_NEEDED = Count(2, len(_LAYER) + 2)


async def _push_image(rooms: Rooms, repository: Repository, *tags: str) -> None:
    for content in (b"{}", _LAYER):
        await rooms.blobs.push(repository, digest_of(content), Bytes(content))
    for tag in tags:
        await rooms.manifests.push(repository, Tag(tag), [], _IMAGE, OCI_MANIFEST)


def _blobs(*exports: Export) -> Count:
    """The layers and configs of exports, each once."""
    found = {
        content for each in exports for content in (*each.layers.values(), each.written.config)
    }
    return Count(len(found), sum(map(len, found)))


async def test_nothing_is_counted_as_nothing(rooms: Rooms) -> None:
    """Also where there is nothing to divide by."""
    stats = await gather_stats(rooms.folder, Namespace())

    assert (stats.all, stats.blobs, stats.deduplication) == (Numbers(), Count(), None)


async def test_what_repositories_share_is_stored_once_and_needed_twice(rooms: Rooms) -> None:
    """Two repositories with the same image, one of which has two tags on it."""
    await _push_image(rooms, APP, "one", "two")
    await _push_image(rooms, _OTHER, "one")

    stats = await gather_stats(rooms.folder, Namespace())

    image = Count(1, len(_IMAGE))
    assert stats.repositories == {
        "ci/app": Numbers(tags=2, manifests=image, needed=_NEEDED),
        "ci/other": Numbers(tags=1, manifests=image, needed=_NEEDED),
    }
    assert stats.all.tags == 3
    assert stats.all.manifests == Count(2, 2 * len(_IMAGE))
    assert stats.blobs == _NEEDED
    assert stats.untagged == Count()
    assert stats.deduplication == 2.0


async def test_caches_are_counted_with_their_sources_and_unions(rooms: Rooms) -> None:
    """A union is one when it has been made; what it needs is needed besides."""
    one, other = export("base", "one"), export("base", "other")
    for each in (one, other):
        await each.push(rooms)
    await export("alone").push(rooms, Tag("alone"))

    before = (await gather_stats(rooms.folder, Namespace())).all
    union = await rooms.manifests.get(APP, TAG)
    after = await gather_stats(rooms.folder, Namespace())

    assert (before.tags, before.cache_tags, before.sources, before.unions) == (2, 2, 3, 0)
    assert before.needed == _blobs(one, other, export("alone"))
    assert (after.all.tags, after.all.cache_tags, after.all.sources) == (2, 2, 3)
    assert after.all.unions == 1
    assert after.all.manifests.count == 4
    assert after.all.needed.bytes - before.needed.bytes == json.loads(union.data)["config"]["size"]
    assert after.untagged == Count()


async def test_what_no_tag_leads_to_is_told(rooms: Rooms) -> None:
    """Blobs without a manifest, and with one that has no tag, which needs them all the same."""
    await _push_image(rooms, APP, "latest")
    await rooms.tags.delete(APP, Tag("latest"))
    await rooms.blobs.push(APP, digest_of(b"alone"), Bytes(b"alone"))

    stats = await gather_stats(rooms.folder, Namespace())

    assert stats.all.needed == _NEEDED
    assert stats.blobs == stats.untagged == Count(3, _NEEDED.bytes + 5)


async def test_indexes_lead_to_their_children(rooms: Rooms) -> None:
    """An image with no tag but that of its index is not untagged."""
    await _push_image(rooms, APP, "latest")
    await rooms.tags.delete(APP, Tag("latest"))
    child = {"mediaType": OCI_MANIFEST, "digest": digest(_IMAGE), "size": len(_IMAGE)}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
    await rooms.manifests.push(APP, Tag("index"), [], index.encode(), OCI_INDEX)

    stats = await gather_stats(rooms.folder, Namespace())

    assert (stats.all.needed, stats.untagged) == (_NEEDED, Count())
    assert stats.all.manifests == Count(2, len(_IMAGE) + len(index))


async def test_what_is_damaged_is_counted_as_such(rooms: Rooms) -> None:
    """A tag and a manifest that cannot be read end nothing."""
    await _push_image(rooms, APP, "latest")
    await _push_image(rooms, _OTHER, "latest")
    await rooms.folder.put(Namespace().tag(APP, Tag("broken")), b"{")
    await rooms.folder.put(Namespace().manifest(_OTHER, digest_of(_IMAGE)), b"x")

    stats = await gather_stats(rooms.folder, Namespace())

    assert stats.repositories["ci/app"].unreadable == 1
    assert stats.repositories["ci/app"].needed == _NEEDED
    assert stats.repositories["ci/other"].unreadable == 1
    assert stats.all.unreadable == 2


async def test_a_failure_is_told_or_counted(tmp_path: Path) -> None:
    """Whichever call fails once: the numbers are not simply lower."""
    rooms = Rooms(tmp_path)
    await _push_image(rooms, APP, "latest")
    whole = await gather_stats(rooms.folder, Namespace())
    for at in count(1):
        bucket = FaultyBucket(rooms.folder, at)
        try:
            stats = await gather_stats(bucket, Namespace())
        except Unavailable:
            continue
        if not bucket.reached:
            assert stats == whole
            return
        assert stats.all.unreadable == 1
