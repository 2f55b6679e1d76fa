"""Cache tags: exports to one tag are served as one cache, which is whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.errors import ManifestUnknown, Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Pattern, Repository, Tag
from cacheproxy.registry.registry import CacheRules
from cacheproxy.registry.sources import Pusher, Window, Windows
from cacheproxy.registry.union import Limits
from cacheproxy.storage.bucket import Bucket, Match
from cacheproxy.storage.layout import Namespace
from tests.api.wire import manifest
from tests.fakes import FaultyBucket, RemoteBucket
from tests.registry.exports import APP, TAG, Export, config_of, export, import_, layer_of
from tests.registry.rooms import Bytes, Rooms

SECOND = 10**9
WINDOW = Window(sources=4, nanoseconds=1000 * SECOND)
WINDOWS = Windows(WINDOW)
WEEK = Windows(Window(32, 7 * 86400 * SECOND))
LIMITS = Limits(1 << 20, 1 << 20)
IMAGE = manifest(annotations={"name": "image"})


def fresh(
    folder: Path,
    bucket: Bucket | None = None,
    *,
    windows: Windows = WINDOWS,
    limits: Limits = LIMITS,
    tier: Path | None = None,
) -> Rooms:
    """A server that has just started, and that looks for layers each time."""
    return Rooms(folder, bucket, CacheRules(windows, limits, verify_seconds=0), tier)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def rooms(folder: Path) -> Rooms:
    return fresh(folder)


async def _push(rooms: Rooms, *exports: Export) -> None:
    for each in exports:
        await each.push(rooms)


async def _lose(rooms: Rooms, digest: Digest) -> None:
    """The bucket loses a blob."""
    assert await rooms.folder.head(Namespace().blob(digest)) is not None
    await rooms.folder.delete(Namespace().blob(digest))


async def _tag_version(rooms: Rooms) -> str:
    stored = await rooms.folder.read(Namespace().tag(APP, TAG))
    assert stored is not None
    return stored.version


async def _tag_is_gone(rooms: Rooms) -> bool:
    try:
        await rooms.manifests.get(APP, TAG)
    except ManifestUnknown:
        return [tag async for tag in rooms.tags.list(APP)] == []
    return False


def layer(step: str) -> Digest:
    return digest_of(layer_of(step))


# What is served


@pytest.mark.parametrize("form", ["image", "index"])
async def test_one_export_is_served_byte_for_byte(rooms: Rooms, form: Any) -> None:
    """A tag with one source is as in any registry."""
    one = export("a", "b", form=form)

    assert await one.push(rooms) == one.digest
    served = await import_(rooms)
    assert served.manifest.data == one.written.manifest
    assert served.manifest.media_type == one.written.media_type


async def test_two_exports_are_served_as_one_cache(rooms: Rooms) -> None:
    """Nobody loses. A push is answered with its own digest, a look at the tag with the union's."""
    one, two = export("a", "b"), export("a", "c")

    assert [await one.push(rooms), await two.push(rooms)] == [one.digest, two.digest]
    served = await import_(rooms)

    assert served.hits("a", "b", "c") == {"a", "b", "c"}
    assert served.digest not in (one.digest, two.digest)


async def test_everybody_gets_what_was_pushed_by_its_digest(rooms: Rooms) -> None:
    """What is merged is the tag alone."""
    one, two = export("a", "b"), export("a", "c")
    await _push(rooms, one, two)
    await import_(rooms)

    for pushed in (one, two):
        assert (await import_(rooms, pushed.digest)).manifest.data == pushed.written.manifest


async def test_the_answer_is_the_same_until_something_changes(rooms: Rooms, folder: Path) -> None:
    """From every server, and nothing is written for it."""
    await _push(rooms, export("a", "b"), export("a", "c"))
    first = (await import_(rooms)).digest
    version = await _tag_version(rooms)

    for server in (rooms, fresh(folder), fresh(folder)):
        assert (await import_(server)).digest == first
    assert await _tag_version(rooms) == version


async def test_exports_in_any_order_are_the_same_union(tmp_path: Path) -> None:
    """Servers that make it at the same time make the same one."""
    exports = [export("a", "b"), export("a", "c"), export("d")]
    digests = set()
    for at in range(3):
        rooms = fresh(tmp_path / str(at))
        await _push(rooms, *exports[at:], *exports[:at])
        digests.add((await import_(rooms)).digest)

    assert len(digests) == 1


async def test_a_union_can_be_fetched_by_digest_after_the_next_one_is_made(rooms: Rooms) -> None:
    """A builder that has resolved the tag is not disturbed by who pushes now."""
    await _push(rooms, export("a"), export("b"))
    before = await import_(rooms)
    await _push(rooms, export("c"))
    after = await import_(rooms)

    assert after.hits("a", "b", "c") == {"a", "b", "c"}
    assert (await import_(rooms, before.digest)).hits("a", "b", "c") == {"a", "b"}


async def test_an_export_that_changes_nothing_changes_nothing(rooms: Rooms) -> None:
    """It is pushed again, since its digest is not the tag's."""
    one, two = export("a"), export("b")
    await _push(rooms, one, two)
    before = await import_(rooms)
    await _push(rooms, one)

    assert (await import_(rooms)).digest == before.digest


async def test_a_push_by_digest_with_tags_is_a_source_of_each(rooms: Rooms) -> None:
    """`PUT /manifests/<digest>?tag=`, as the spec has it since lately."""
    await _push(rooms, export("a"))
    two = export("b")
    await two.push(rooms, Tag("other"))
    data, media_type = two.written.manifest, two.written.media_type
    await rooms.manifests.push(APP, two.digest, [TAG, Tag("third")], data, media_type)

    assert (await import_(rooms, TAG)).hits("a", "b") == {"a", "b"}
    assert (await import_(rooms, Tag("third"))).hits("a", "b") == {"b"}


async def test_tags_are_merged_each_for_itself(rooms: Rooms) -> None:
    """What is pushed to another tag is not in this one."""
    await _push(rooms, export("a"))
    await export("b").push(rooms, Tag("other"))

    assert (await import_(rooms)).hits("a", "b") == {"a"}


async def test_one_export_in_index_form_makes_the_union_an_index(rooms: Rooms) -> None:
    """An old BuildKit that pushed it can read that; a new one reads both."""
    await _push(rooms, export("a", form="index"), export("b"))

    assert (await import_(rooms)).manifest.media_type.endswith("index.v1+json")
    assert (await import_(rooms)).hits("a", "b") == {"a", "b"}


async def test_an_image_replaces_a_cache_and_a_cache_an_image(rooms: Rooms) -> None:
    """What the tag had before is not in it any more."""
    await _push(rooms, export("a"), export("b"))
    await rooms.manifests.push(APP, TAG, [], IMAGE, OCI_MANIFEST)
    assert (await rooms.manifests.get(APP, TAG)).data == IMAGE

    await _push(rooms, export("c"))
    assert (await import_(rooms)).hits("a", "b", "c") == {"c"}


async def test_a_time_in_the_future_counts_as_that_of_the_first_receipt(rooms: Rooms) -> None:
    """Also when it is pushed again later: a step with a wrong clock does not win for ever."""
    received = int(rooms.now * SECOND)
    future = export("a", created_at=received * 2, made={"a": "future"})
    await _push(rooms, future, export("b"))
    rooms.now += 100
    await _push(rooms, future)
    assert (await import_(rooms)).created_at("a") == received

    await _push(rooms, export("a", created_at=received + SECOND, made={"a": "later"}))
    assert (await import_(rooms)).created_at("a") == received + SECOND


# The window


async def test_the_latest_sources_are_served(rooms: Rooms) -> None:
    """As many as the window has room for; a source that is pushed again is among the latest."""
    await _push(rooms, *[export(step) for step in "abcd"], export("a"), export("e"))

    assert (await import_(rooms)).hits(*"abcde") == set("acde")


async def test_a_source_leaves_when_its_time_is_over(rooms: Rooms) -> None:
    """Of many that are too old, the latest stays."""
    await _push(rooms, export("a"), export("b"))
    rooms.now += 600
    await _push(rooms, export("c"))
    assert (await import_(rooms)).hits(*"abc") == set("abc")

    rooms.now += 600
    assert (await import_(rooms)).hits(*"abc") == {"c"}
    rooms.now += 10_000
    assert (await import_(rooms)).hits(*"abc") == {"c"}


async def test_an_import_renews_what_it_was_served(rooms: Rooms, folder: Path) -> None:
    """A cache that is used stays, also if it is not pushed again."""
    await _push(rooms, export("a"), export("b"))
    for _ in range(4):
        rooms.now += 900
        assert (await import_(rooms)).hits("a", "b") == {"a", "b"}
        await rooms.uses.write()

    later = fresh(folder)
    later.now = rooms.now + 900
    assert (await import_(later)).hits("a", "b") == {"a", "b"}


async def test_no_use_makes_room_for_more_sources_than_there_may_be(rooms: Rooms) -> None:
    """Who pushes anew comes before who only imports."""
    for step in "abcdef":
        await _push(rooms, export(step))
        await import_(rooms)
        await rooms.uses.write()

    assert (await import_(rooms)).hits(*"abcdef") == set("cdef")


async def test_a_use_is_written_down_once_in_a_while(folder: Path) -> None:
    """Not at each import, as each costs a write; and nothing is written where nothing is used."""
    rooms = fresh(folder, windows=WEEK)
    await _push(rooms, export("a"), export("b"))
    await import_(rooms)
    rooms.now += 1799
    await rooms.uses.write()
    version = await _tag_version(rooms)
    rooms.now += 1
    await rooms.uses.write()
    assert await _tag_version(rooms) == version

    await import_(rooms)
    await rooms.uses.write()
    assert await _tag_version(rooms) != version


async def test_a_use_that_could_not_be_written_down_is_not_forgotten(
    rooms: Rooms, folder: Path
) -> None:
    """A failure at one tag keeps no other from its turn, and is made up for the next time."""
    await _push(rooms, export("a"), export("b"))
    for name in ("one", "two"):
        await export("a").push(rooms, Tag(name))
    faulty = FaultyBucket(rooms.folder, fail_at=0)
    server = fresh(folder, faulty)
    for tag in (TAG, Tag("one"), Tag("two")):
        await import_(server, tag)
    server.now = rooms.now = rooms.now + 2000
    faulty.arm(1)
    with pytest.raises(Unavailable):
        await server.uses.write()
    assert faulty.reached

    used_at = {tag: await _used_at(rooms, tag) for tag in (TAG, Tag("one"), Tag("two"))}
    assert sorted(used_at.values())[1:] == [int(rooms.now * SECOND)] * 2
    await server.uses.write()
    for tag in used_at:
        assert await _used_at(rooms, tag) == int(rooms.now * SECOND)


async def _used_at(rooms: Rooms, tag: Tag) -> int:
    record = await rooms.tags.read(APP, tag)
    assert record is not None
    return min(source.used_at for source in record.sources)


async def test_merging_can_be_off_for_some_repositories(folder: Path) -> None:
    """The last push is what the tag leads to, byte for byte, also in the same moment."""
    rooms = fresh(folder, windows=Windows(WINDOW, [(Pattern("ci/*"), Window(1, SECOND))]))
    for step in "abc":
        one = export(step)
        await _push(rooms, one)
        assert (await import_(rooms)).manifest.data == one.written.manifest


async def test_a_push_is_served_whatever_the_clock_of_its_server_says(folder: Path) -> None:
    """A server whose clock is behind is not overruled by who has pushed before."""
    ahead, behind = [fresh(folder, windows=Windows(Window(1, SECOND))) for _ in range(2)]
    ahead.now += 5000
    await _push(ahead, export("a"))
    await _push(behind, export("b"))

    for server in (ahead, behind):
        assert (await import_(server)).hits("a", "b") == {"b"}


# Deletion


async def test_a_tag_that_is_deleted_has_no_sources(rooms: Rooms) -> None:
    """What is pushed to it afterwards is alone in it."""
    await _push(rooms, export("a"), export("b"))
    await rooms.manifests.delete(APP, TAG)
    assert await _tag_is_gone(rooms)

    await _push(rooms, export("c"))
    assert (await import_(rooms)).hits(*"abc") == {"c"}


async def test_a_source_that_is_deleted_leaves_the_tag(rooms: Rooms) -> None:
    """With the last of them goes the tag."""
    one, two = export("a"), export("b")
    await _push(rooms, one, two)
    await import_(rooms)

    await rooms.manifests.delete(APP, one.digest)
    assert (await import_(rooms)).manifest.data == two.written.manifest
    await rooms.manifests.delete(APP, two.digest)
    assert await _tag_is_gone(rooms)


async def test_a_union_that_is_deleted_takes_its_tag_along(rooms: Rooms) -> None:
    """Who deletes what a tag leads to does not want to find it there again."""
    await _push(rooms, export("a"), export("b"))
    await rooms.manifests.delete(APP, (await import_(rooms)).digest)

    assert await _tag_is_gone(rooms)


async def test_a_union_that_was_deleted_is_made_anew_when_its_sources_come_again(
    folder: Path,
) -> None:
    """At once: a server that remembers where the tag led does not lead to what is gone."""
    rooms = Rooms(folder)
    one, two = export("a"), export("b")
    await _push(rooms, one, two)
    await rooms.manifests.delete(APP, (await import_(rooms)).digest)
    await _push(rooms, one, two)

    assert (await import_(rooms)).hits("a", "b") == {"a", "b"}


# What is gone


async def test_a_layer_that_is_gone_is_left_out_until_it_is_back(rooms: Rooms) -> None:
    """What needs it is a miss then; and the answer is as stable as before."""
    await _push(rooms, export("a", "b"), export("a", "c"))
    whole = await import_(rooms)
    await _lose(rooms, layer("b"))

    trimmed = await import_(rooms)
    assert trimmed.hits("a", "b", "c") == {"a", "c"}
    version = await _tag_version(rooms)
    assert (await import_(rooms)).digest == trimmed.digest
    assert await _tag_version(rooms) == version

    await rooms.blobs.push(APP, layer("b"), Bytes(layer_of("b")))
    assert (await import_(rooms)).digest == whole.digest


@pytest.mark.parametrize("form", ["image", "index"])
async def test_a_layer_of_the_only_source_that_is_gone_is_left_out(rooms: Rooms, form: Any) -> None:
    """In the form in which it was pushed."""
    one = export("a", "b", form=form)
    await _push(rooms, one)
    await import_(rooms)
    await _lose(rooms, layer("b"))

    served = await import_(rooms)
    assert served.hits("a", "b") == {"a"}
    assert served.manifest.media_type == one.written.media_type


async def test_what_another_server_finds_gone_is_looked_for_at_once(folder: Path) -> None:
    """Also where all was seen a moment ago; and the servers agree, they do not take turns."""
    here, there = Rooms(folder), Rooms(folder)  # which remember for a minute what they have seen
    await _push(here, export("a", "b"), export("a", "c"))
    await import_(here)
    await _lose(here, layer("b"))
    trimmed = await import_(there)
    version = await _tag_version(there)
    assert trimmed.hits("a", "b", "c") == {"a", "c"}

    for server in (here, there, here, there):
        assert (await import_(server)).digest == trimmed.digest
    assert await _tag_version(there) == version


async def test_a_source_whose_layers_come_later_is_completed_later(rooms: Rooms) -> None:
    """Some clients push manifests first; nothing need be pushed twice."""
    one = export("a", "b")
    await one.push(rooms, without="b")
    assert (await import_(rooms)).hits("a", "b") == {"a"}

    await rooms.blobs.push(APP, layer("b"), Bytes(layer_of("b")))
    assert (await import_(rooms)).manifest.data == one.written.manifest


async def test_a_cache_of_which_nothing_is_left_is_empty(rooms: Rooms) -> None:
    """As long as its config is there; without it the tag leads to nothing, like a new one."""
    one = export("a", "b")
    await _push(rooms, one)
    for step in ("a", "b"):
        await _lose(rooms, layer(step))
    assert (await import_(rooms)).cache.config.records == ()

    await _lose(rooms, digest_of(one.written.config))
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get(APP, TAG)


async def test_a_source_whose_config_is_gone_is_left_out(rooms: Rooms) -> None:
    """The others are served."""
    one, two = export("a"), export("b")
    await _push(rooms, one, two)
    await import_(rooms)
    await _lose(rooms, digest_of(one.written.config))
    rooms.now += 1  # no reason to make it anew by itself
    await _push(rooms, export("c"))

    assert (await import_(rooms)).hits(*"abc") == {"b", "c"}


async def test_a_source_whose_manifest_is_gone_is_left_out(rooms: Rooms, folder: Path) -> None:
    """The others are served."""
    one = export("a")
    await _push(rooms, one, export("b"))
    await rooms.folder.delete(Namespace().manifest(APP, one.digest))

    assert (await import_(fresh(folder))).hits("a", "b") == {"b"}


@pytest.mark.parametrize("lost", ["manifest", "config"])
async def test_a_union_that_is_lost_is_made_again(rooms: Rooms, folder: Path, lost: str) -> None:
    """It is the same, since its sources are."""
    await _push(rooms, export("a"), export("b"))
    union = await import_(rooms)
    if lost == "manifest":
        await rooms.folder.delete(Namespace().manifest(APP, union.digest))
    else:
        await _lose(rooms, config_of(union.manifest))

    assert (await import_(fresh(folder))).digest == union.digest


async def test_a_layer_that_the_repository_hides_is_left_out(rooms: Rooms) -> None:
    """DELETE of a blob takes it from the cache too; a push of it brings it back."""
    await _push(rooms, export("a", "b"), export("a", "c"))
    whole = await import_(rooms)
    await rooms.blobs.delete(APP, layer("b"))
    assert (await import_(rooms)).hits("a", "b", "c") == {"a", "c"}

    await rooms.blobs.push(APP, layer("b"), Bytes(layer_of("b")))
    assert (await import_(rooms)).digest == whole.digest


async def test_a_layer_that_was_hidden_is_back_with_an_export_that_names_it(rooms: Rooms) -> None:
    """A builder that finds a layer there does not push it, but its manifest."""
    await _push(rooms, export("a", "b"), export("a", "c"))
    await rooms.blobs.delete(APP, layer("b"))
    await import_(rooms)
    await export("a", "b", "d").push(rooms, without="b")

    assert (await import_(rooms)).hits(*"abcd") == set("abcd")


# Repair


@pytest.fixture
async def far(tmp_path: Path) -> Rooms:
    """A server with a tier, on a bucket that is far away and has a cache of two sources."""
    folder = tmp_path / "data"
    server = fresh(folder, RemoteBucket(Rooms(folder).folder), tier=tmp_path / "tier")
    await _push(server, export("a", "b"), export("a", "c"))
    return server


async def test_a_layer_that_the_bucket_has_lost_is_repaired_from_the_tier(far: Rooms) -> None:
    """Builders notice nothing, whichever server they ask then."""
    whole = await import_(far)
    await _lose(far, layer("b"))

    assert (await import_(far)).digest == whole.digest  # which looks into the bucket


async def test_a_config_that_the_bucket_has_lost_is_repaired_from_the_tier(far: Rooms) -> None:
    """Those of the union and of its sources alike: other servers need them."""
    union = await import_(far)
    configs = [export("a", "b"), export("a", "c")]
    lost = [config_of(union.manifest), *[digest_of(one.written.config) for one in configs]]
    for digest in lost:
        await _lose(far, digest)
    await import_(far)
    await _push(far, export("d"))
    await import_(far)

    for digest in lost:
        assert await far.folder.head(Namespace().blob(digest)) is not None


async def test_the_config_of_the_only_source_is_repaired_before_it_is_served(
    tmp_path: Path,
) -> None:
    """It was read from the tier, where other servers cannot find it."""
    folder = tmp_path / "data"
    server = fresh(folder, RemoteBucket(Rooms(folder).folder), tier=tmp_path / "tier")
    one = export("a")
    await _push(server, one)
    await _lose(server, digest_of(one.written.config))

    assert (await import_(server)).digest == one.digest
    assert (await import_(fresh(folder))).digest == one.digest


async def test_what_was_read_from_the_tier_is_not_taken_to_be_in_the_bucket(
    tmp_path: Path,
) -> None:
    """A layer that this server has read a moment ago may be lost for all others."""
    folder = tmp_path / "data"
    rules = CacheRules(Windows(WINDOW), verify_seconds=60)
    bucket = RemoteBucket(Rooms(folder).folder)
    await _push(Rooms(folder, bucket, rules, tmp_path / "tier"), export("a", "b"))
    await _lose(Rooms(folder), layer("b"))
    server = Rooms(folder, bucket, rules, tmp_path / "tier")
    (await server.blobs.open(APP, layer("b"))).close()

    assert (await import_(server)).hits("a", "b") == {"a", "b"}  # which looks into the bucket


async def test_what_is_damaged_in_the_tier_repairs_nothing(far: Rooms, tmp_path: Path) -> None:
    """It is left out then."""
    [entry] = (tmp_path / "tier" / "blobs").rglob(layer("b").hex)
    entry.write_bytes(b"damaged")
    await _lose(far, layer("b"))

    assert (await import_(far)).hits("a", "b", "c") == {"a", "c"}


# What cannot be merged


def _opaque(*steps: str, config: bytes) -> tuple[Export, bytes]:
    """An export with another config."""
    one = export(*steps)
    old, new = digest_of(one.written.config), digest_of(config)
    return one, one.written.manifest.replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    "config",
    [b"", b"[", b"{}" * 9, b'{"future":1}', b'{"records":[{"inputs":[[{"link":9}]]}]}', b"\xff"],
)
async def test_a_malformed_export_never_disables_its_tag(rooms: Rooms, config: bytes) -> None:
    """Alone it is passed on as it came, for whoever can read it; beside others it is left out."""
    one, data = _opaque("x", config=config)
    await rooms.blobs.push(APP, layer("x"), Bytes(layer_of("x")))
    await rooms.blobs.push(APP, digest_of(config), Bytes(config))
    pushed = await rooms.manifests.push(APP, TAG, [], data, one.written.media_type)
    if config:  # an empty one cannot be told from none
        assert (await rooms.manifests.get(APP, TAG)).data == data

    await _push(rooms, export("a"), export("b"))
    await rooms.manifests.push(APP, TAG, [], data, one.written.media_type)
    assert (await import_(rooms)).hits("a", "b") == {"a", "b"}
    assert (await rooms.manifests.get(APP, pushed.digest)).data == data


async def test_a_manifest_that_contradicts_itself_never_disables_its_tag(rooms: Rooms) -> None:
    """Such as an index of two caches, of which BuildKit would read any."""
    one, other = [export(step, form="index") for step in "xy"]
    entry = json.loads(other.written.manifest)["manifests"][-1]
    index = json.loads(one.written.manifest)
    index["manifests"].append(entry)
    data, media_type = json.dumps(index).encode(), one.written.media_type
    await rooms.manifests.push(APP, TAG, [], data, media_type)
    assert (await rooms.manifests.get(APP, TAG)).data == data

    await _push(rooms, export("a"))
    await rooms.manifests.push(APP, TAG, [], data, media_type)
    assert (await import_(rooms)).hits("a", "x", "y") == {"a"}


async def test_an_export_over_the_limit_becomes_importable(folder: Path) -> None:
    """BuildKit would ignore it. By digest it is as it was pushed."""
    names = [f"step {number}" for number in range(40)]
    big = export(*names)
    limits = Limits(len(big.written.config) // 2, len(big.written.manifest) // 2)
    rooms = fresh(folder, limits=limits)
    await _push(rooms, big)

    served = await import_(rooms)
    config = await rooms.blobs.read(APP, config_of(served.manifest), limits.config_bytes)
    assert config is not None
    assert len(served.manifest.data) <= limits.manifest_bytes
    assert 10 < len(served.hits(*names)) < 40
    assert (await rooms.manifests.get(APP, big.digest)).data == big.written.manifest


# At once


async def test_pushes_at_once_on_two_servers_are_all_in_the_union(folder: Path) -> None:
    """None overwrites another, however they interleave."""
    windows = Windows(Window(32, SECOND))
    servers = [fresh(folder, windows=windows) for _ in range(2)]
    names = [f"step {number}" for number in range(16)]
    pushes = [export(name).push(servers[at % 2]) for at, name in enumerate(names)]
    reads = [suppressed(servers[at % 2].manifests.get(APP, TAG)) for at in range(8)]
    await asyncio.gather(*pushes, *reads)

    digests = set()
    for server in servers:
        served = await import_(server)
        assert served.hits(*names) == set(names)
        digests.add(served.digest)
    assert len(digests) == 1


async def suppressed(work: Awaitable[object]) -> None:
    """Nothing may have been pushed yet."""
    with suppress(ManifestUnknown):
        await work


async def test_many_who_ask_at_once_share_the_making_of_a_union(rooms: Rooms, folder: Path) -> None:
    """It is stored once."""
    await _push(rooms, export("a"), export("b"))
    bucket = Meddled(rooms.folder)
    server = fresh(folder, bucket)
    found = await asyncio.gather(*[server.manifests.get(APP, TAG) for _ in range(20)])

    assert len({each.digest for each in found}) == 1
    assert [key for key in bucket.puts if "/_manifests/" in key] == [
        Namespace().manifest(APP, found[0].digest)
    ]
    assert len([key for key in bucket.puts if "/_tags/" in key]) == 1


@pytest.mark.parametrize("moment", ["at once", "in the middle"])
async def test_who_leaves_does_not_end_the_making_for_the_others(
    rooms: Rooms, folder: Path, moment: str
) -> None:
    """Not even the one that began it."""
    await _push(rooms, export("a"), export("b"))
    bucket = Meddled(rooms.folder)
    server = fresh(folder, bucket)
    asking = [asyncio.create_task(server.manifests.get(APP, TAG)) for _ in range(3)]
    begun = asyncio.Event()

    async def leave() -> None:
        asking[0].cancel()
        begun.set()

    bucket.before_tag = leave
    if moment == "at once":
        await asyncio.sleep(0)
        await leave()
        bucket.before_tag = None
    outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert begun.is_set()
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1] == outcomes[2] == (await import_(server)).manifest


class Meddled(FaultyBucket):
    """A bucket that fails by itself never; `before_tag` is done before the next write of a tag."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner, fail_at=0)
        self.before_tag: Callable[[], Awaitable[object]] | None = None
        self.puts: list[str] = []

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        self.puts.append(key)
        if self.before_tag is not None and "/_tags/" in key:
            act, self.before_tag = self.before_tag, None
            await act()
        await super().put(key, data, metadata=metadata, match=match)


async def test_a_push_while_a_union_is_made_is_in_the_next_one(rooms: Rooms, folder: Path) -> None:
    """Who made it does not overwrite what was pushed meanwhile."""
    await _push(rooms, export("a"), export("b"))
    bucket = Meddled(rooms.folder)
    bucket.before_tag = lambda: export("c").push(rooms)

    assert (await import_(fresh(folder, bucket))).hits(*"abc") == {"a", "b"}
    assert (await import_(rooms)).hits(*"abc") == {"a", "b", "c"}


async def test_a_tag_that_becomes_an_image_while_its_union_is_made_stays_one(
    rooms: Rooms, folder: Path
) -> None:
    """The maker does not lead it back to the cache."""
    await _push(rooms, export("a"), export("b"))
    bucket = Meddled(rooms.folder)
    bucket.before_tag = lambda: rooms.manifests.push(APP, TAG, [], IMAGE, OCI_MANIFEST)
    await fresh(folder, bucket).manifests.get(APP, TAG)

    assert (await fresh(folder).manifests.get(APP, TAG)).data == IMAGE


async def test_a_tag_that_is_deleted_while_its_union_is_made_stays_deleted(
    rooms: Rooms, folder: Path
) -> None:
    """The maker does not bring it back."""
    await _push(rooms, export("a"), export("b"))
    bucket = Meddled(rooms.folder)
    bucket.before_tag = lambda: rooms.manifests.delete(APP, TAG)
    await fresh(folder, bucket).manifests.get(APP, TAG)

    assert await _tag_is_gone(fresh(folder))


# Failures


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", ["new", "a layer lost", "unchanged"])
async def test_a_failure_at_any_call_leaves_nothing_wrong(
    tmp_path: Path, scene: str, late: bool
) -> None:
    """Who asks while the bucket fails is told to come again, and finds the cache then; other
    servers find it at once."""
    for fail_at in count(1):
        folder = tmp_path / str(fail_at)
        plain = fresh(folder)
        await _push(plain, export("a", "b"), export("a", "c"))
        if scene != "new":
            await import_(plain)
        if scene == "a layer lost":
            await _lose(plain, layer("b"))
        hits = {"a", "c"} if scene == "a layer lost" else {"a", "b", "c"}
        faulty = FaultyBucket(plain.folder, fail_at, late)
        server = fresh(folder, faulty)
        with suppress(Unavailable):
            assert (await import_(server)).hits("a", "b", "c") == hits

        reached = faulty.reached
        faulty.arm(0)
        other, again = await import_(fresh(folder)), await import_(server)
        assert other.hits("a", "b", "c") == again.hits("a", "b", "c") == hits
        assert other.digest == again.digest
        assert server.spooled == []
        if not reached:
            break
    assert fail_at > 5


async def test_a_failure_is_no_answer_about_what_exists(rooms: Rooms, folder: Path) -> None:
    """A layer that could not be looked for is not left out."""
    await _push(rooms, export("a", "b"), export("a", "c"))
    whole = (await import_(rooms)).digest
    outcomes = []
    for fail_at in count(1):
        faulty = FaultyBucket(rooms.folder, fail_at)
        try:
            found = await fresh(folder, faulty).manifests.get(APP, TAG)
        except Unavailable:
            outcomes.append("unavailable")
            continue
        assert found.digest == whole
        break

    assert len(outcomes) > 3


async def test_an_unknown_repository_has_no_cache(rooms: Rooms) -> None:
    """Nor has another repository the tags of this one."""
    await _push(rooms, export("a"))

    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get(Repository("ci/other"), TAG)


async def _push_as(rooms: Rooms, one: Export, user: str | None) -> None:
    for content in (*one.layers.values(), one.written.config):
        await rooms.blobs.push(APP, digest_of(content), Bytes(content))
    data, media_type = one.written.manifest, one.written.media_type
    await rooms.manifests.push(APP, TAG, [], data, media_type, Pusher("", user))


async def test_what_was_pushed_by_who_may_not_any_more_is_not_served(folder: Path) -> None:
    """A user who is gone, or trusted no more, has no part in what others build from."""
    may: set[str | None] = {"one", "two"}
    rooms = Rooms(folder, may_push=lambda user, repository: user in may)
    await _push_as(rooms, export("a", "b"), "one")
    await _push_as(rooms, export("a", "c"), "two")
    assert (await import_(rooms)).hits("b", "c") == {"b", "c"}

    may.discard("two")
    assert (await import_(rooms)).hits("b", "c") == {"b"}
    may.add("two")
    assert (await import_(rooms)).hits("b", "c") == {"b", "c"}


async def test_a_tag_that_nobody_vouches_for_leads_nowhere(folder: Path) -> None:
    """Its builds have misses; by digest everybody gets what was pushed."""
    may: set[str | None] = {None}
    rooms = Rooms(folder, may_push=lambda user, repository: user in may)
    one = export("a")
    await one.push(rooms)
    may.clear()

    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get(APP, TAG)
    assert (await rooms.manifests.get(APP, one.digest)).data == one.written.manifest


@pytest.mark.parametrize("gone", ["one", "two"])
async def test_all_who_push_a_source_vouch_for_it(folder: Path, gone: str) -> None:
    """One of them who still may is enough."""
    may: set[str | None] = {"one", "two"}
    rooms = Rooms(folder, may_push=lambda user, repository: user in may)
    for user in ("one", "two"):
        await _push_as(rooms, export("a"), user)

    may.discard(gone)
    assert (await import_(rooms)).hits("a") == {"a"}
