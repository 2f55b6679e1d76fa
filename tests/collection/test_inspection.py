"""Inspection: what is in a cache tag, what is not, and why; nothing changes by it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cacheproxy.collection.dropping import NoSource, drop_source
from cacheproxy.collection.inspection import (
    Amount,
    NoCache,
    Omitted,
    TagReport,
    inspect,
    unions_to_look_at,
)
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.reference import Tag
from cacheproxy.registry.batches import Batch, write_batch
from cacheproxy.registry.sources import Pusher, Window
from cacheproxy.registry.tags import Tags
from cacheproxy.registry.union import Limits
from cacheproxy.storage.bucket import Match
from cacheproxy.storage.layout import Namespace
from tests.fakes import FaultyBucket
from tests.registry.exports import APP, TAG, Export, export, layer_of
from tests.registry.rooms import Bytes, Rooms

_NAMESPACE = Namespace()
_HOUR = 3600 * 10**9
_WINDOW = Window(sources=4, nanoseconds=_HOUR)
_LIMITS = Limits(1 << 20, 1 << 20)
_ONE, _OTHER = export("base", "one"), export("base", "other")


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """A registry at this time, in which the inspection takes place."""
    rooms = Rooms(tmp_path / "data")
    rooms.now = time.time()
    return rooms


async def _look(
    rooms: Rooms, tag: Tag = TAG, window: Window = _WINDOW, limits: Limits = _LIMITS
) -> TagReport:
    """Inspect, and see to it that nothing has changed."""
    before = _all_of(rooms)
    contents = Contents(rooms.folder, SpoolFolder("/nowhere"))
    unions = await unions_to_look_at(rooms.folder, _NAMESPACE, contents, limits)
    report = await inspect(rooms.tags, unions, window, APP, tag)
    assert _all_of(rooms) == before
    return report


def _all_of(rooms: Rooms) -> dict[str, tuple[int, int]]:
    """Every file: which it is, and when it was written."""
    found = {}
    for folder, _, names in os.walk(os.path.dirname(rooms.folder.spool)):
        for path in (os.path.join(folder, name) for name in names):
            stat = os.stat(path)
            found[path] = (stat.st_ino, stat.st_mtime_ns)
    return found


async def _push(rooms: Rooms, *exports: Export) -> None:
    for each in exports:
        await each.push(rooms)


def _bytes(*steps: str) -> int:
    return sum(len(layer_of(step)) for step in steps)


async def test_sources_are_told_with_what_they_have(rooms: Rooms) -> None:
    """The latest first, with the times of the record."""
    await _push(rooms, _ONE)
    rooms.now += 60
    await _push(rooms, _OTHER)

    report = await _look(rooms)

    assert [source.digest for source in report.sources] == [_OTHER.digest, _ONE.digest]
    latest, first = report.sources
    assert latest.has == latest.united == Amount(3, 2, 2, _bytes("base", "other"))
    assert (latest.last_pushed - first.last_pushed).total_seconds() == 60
    assert first.first_received == first.last_pushed == first.last_used
    assert report.union is not None
    assert report.union.has == Amount(4, 3, 3, _bytes("base", "one", "other"))
    assert not report.union.recorded


async def test_what_is_told_to_be_served_is_served(rooms: Rooms) -> None:
    """Before the union was made and after it."""
    await _push(rooms, _ONE, _OTHER)
    before = (await _look(rooms)).union
    served = await rooms.manifests.get(APP, TAG)
    after = (await _look(rooms)).union

    assert before is not None
    assert after is not None
    assert before.digest == after.digest == served.digest
    assert (before.recorded, after.recorded) == (False, True)
    assert after.manifest_bytes == len(served.data)


async def test_missing_layers_are_told_by_source(rooms: Rooms) -> None:
    """What is lost is not in the union, nor is what was built on it."""
    await _push(rooms, _OTHER)
    await export("low", "high").push(rooms, without="low")

    lacking, whole = (await _look(rooms)).sources

    assert lacking.missing_layers == (str(digest_of(layer_of("low"))),)
    assert lacking.has == Amount(3, 2, 1, _bytes("high"))
    assert lacking.united == Amount(1, 0, 0, 0)
    assert (whole.missing_layers, whole.united) == ((), whole.has)


async def test_a_source_that_is_gone_is_told(rooms: Rooms) -> None:
    """Its manifest, or its config."""
    third = export("base", "third")
    await _push(rooms, _ONE, _OTHER, third)
    await rooms.folder.delete(_NAMESPACE.manifest(APP, _OTHER.digest))
    await rooms.folder.delete(_NAMESPACE.blob(digest_of(third.written.config)))

    left_out = {source.digest: source.left_out for source in (await _look(rooms)).sources}

    assert left_out == {
        third.digest: "its config is gone",
        _OTHER.digest: "its manifest is gone",
        _ONE.digest: None,
    }


async def test_a_tag_of_which_nothing_is_left_is_told(rooms: Rooms) -> None:
    """There is no union, and all sources are gone."""
    await _push(rooms, _ONE, _OTHER)
    for each in (_ONE, _OTHER):
        await rooms.folder.delete(_NAMESPACE.manifest(APP, each.digest))

    report = await _look(rooms)

    assert report.union is None
    assert {source.left_out for source in report.sources} == {"its manifest or config is gone"}


async def test_what_is_not_understood_is_told(rooms: Rooms) -> None:
    """Beside others it is left out, and why; alone it is served as it was pushed."""
    strange = await _push_strange(rooms)
    alone = await _look(rooms)
    await _push(rooms, _ONE)
    beside = await _look(rooms)

    assert alone.union is not None
    assert (alone.union.digest, alone.union.has) == (strange, None)
    assert alone.sources[0].left_out is None
    assert beside.union is not None
    assert beside.union.digest == _ONE.digest
    assert beside.sources[1].digest == strange
    assert "unknown" in str(beside.sources[1].left_out)


async def _push_strange(rooms: Rooms) -> Digest:
    """Push a cache with a field that nobody knows."""
    config = b'{"layers":[],"records":[],"strange":1}'
    known = _ONE.written
    data = known.manifest.replace(known.config_digest.encode(), digest_of(config).encode())
    data = data.replace(f'"size":{len(known.config)}'.encode(), f'"size":{len(config)}'.encode())
    for content in (config, *_ONE.layers.values()):
        await rooms.blobs.push(APP, digest_of(content), Bytes(content))
    return (await rooms.manifests.push(APP, TAG, [], data, known.media_type)).digest


async def test_sources_outside_of_the_window_are_told(rooms: Rooms) -> None:
    """Those that are too old, and those that are too many."""
    rooms.now -= 7200
    await _push(rooms, export("old"))
    rooms.now += 7000
    await _push(rooms, export("third"), _ONE, _OTHER)

    sources = (await _look(rooms, window=Window(2, _HOUR))).sources

    left_out = {source.digest: source.left_out for source in sources}
    assert left_out == {
        _OTHER.digest: None,
        _ONE.digest: None,
        export("third").digest: "it is not among the latest 2",
        export("old").digest: "it was neither pushed nor used for longer than the window",
    }


async def test_what_does_not_fit_is_told(rooms: Rooms) -> None:
    """How much is left out, and what of each source is not."""
    large = export(*[f"step {number}" for number in range(20)])
    await _push(rooms, _ONE, large)

    report = await _look(rooms, limits=Limits(1 << 20, 3000))

    assert report.union is not None
    assert report.union.manifest_bytes <= 3000
    assert report.union.has is not None
    left = report.union.did_not_fit
    assert isinstance(left, Omitted)
    assert left.layers == 22 - report.union.has.layers
    united = report.sources[0].united
    assert united is not None
    assert 0 < united.layers < 20


async def test_layers_that_sources_dispute_are_told(rooms: Rooms) -> None:
    """Two say something else about the contents of a layer."""
    tar = str(digest_of(b"tar of " + layer_of("base"))).encode()
    await _push(rooms, _ONE, _OTHER)
    data = _OTHER.written.manifest.replace(tar, str(digest_of(b"another")).encode())
    await rooms.manifests.push(APP, TAG, [], data, _OTHER.written.media_type)

    report = await _look(rooms)

    assert report.union is not None
    assert report.union.disputed_layers == (str(digest_of(layer_of("base"))),)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_layer_that_is_condemned_is_told_as_it_is_and_stays_condemned(
    rooms: Rooms, lost: bool
) -> None:
    """Who looks promises nothing, and stores nothing again."""
    await _push(rooms, _ONE)
    digest = digest_of(layer_of("one"))
    key = _NAMESPACE.blob(digest)
    await rooms.folder.put(_NAMESPACE.batches() + "1", write_batch(Batch((key,))))
    if lost:
        await rooms.folder.delete(key)

    assert (await _look(rooms)).sources[0].missing_layers == ((str(digest),) if lost else ())


async def test_hidden_layers_are_missing(rooms: Rooms) -> None:
    """As for the servers."""
    await _push(rooms, _ONE)
    await rooms.blobs.delete(APP, digest_of(layer_of("one")))

    assert (await _look(rooms)).sources[0].missing_layers == (str(digest_of(layer_of("one"))),)


async def test_what_is_no_cache_is_told(rooms: Rooms) -> None:
    """An image, and nothing."""
    await rooms.tags.point(APP, Tag("image"), digest_of(b"x"))
    for tag, says in (("image", "is no cache"), ("none", "there is no tag")):
        with pytest.raises(NoCache, match=says):
            await _look(rooms, Tag(tag))


async def test_a_source_is_dropped_alone(rooms: Rooms) -> None:
    """All else in the record stays; what is not served any more is not said to be fresh."""
    await _push(rooms, _ONE, _OTHER)
    await rooms.manifests.get(APP, TAG)
    before = await rooms.tags.read(APP, TAG)

    assert await drop_source(rooms.tags, APP, TAG, _ONE.digest[7:20]) == (_ONE.digest, 1)

    after = await rooms.tags.read(APP, TAG)
    assert before is not None
    assert after is not None
    assert after.sources == tuple(each for each in before.sources if each.digest != _ONE.digest)
    assert (await rooms.manifests.get(APP, TAG)).digest == _OTHER.digest


async def test_the_last_source_takes_the_tag_with_it(rooms: Rooms) -> None:
    """There is nothing left to lead to."""
    await _push(rooms, _ONE)

    assert await drop_source(rooms.tags, APP, TAG, "sha256:") == (_ONE.digest, 0)
    assert await rooms.tags.read(APP, TAG) is None


async def test_it_must_be_clear_which_source_is_dropped(rooms: Rooms) -> None:
    """One, and a part of its digest from its begin on."""
    await _push(rooms, _ONE, _OTHER)
    before = await rooms.tags.read(APP, TAG)
    for prefix in ("", "sha256:", "sha512:", _ONE.digest[8:], "zz"):
        with pytest.raises(NoSource):
            await drop_source(rooms.tags, APP, TAG, prefix)
    assert await rooms.tags.read(APP, TAG) == before


async def test_a_tag_that_becomes_an_images_meanwhile_is_left_alone(rooms: Rooms) -> None:
    """Who drops a source writes over nothing else."""
    await _push(rooms, _ONE, _OTHER)
    late = Tags(_Late(rooms), _NAMESPACE)

    assert await drop_source(late, APP, TAG, _ONE.digest) == (_ONE.digest, 0)

    record = await rooms.tags.read(APP, TAG)
    assert record is not None
    assert (record.digest, record.sources) == (digest_of(b"image"), ())


class _Late(FaultyBucket):
    """A bucket in which the tag is moved to an image just before it is written."""

    def __init__(self, rooms: Rooms) -> None:
        super().__init__(rooms.folder, 0)
        self._rooms = rooms

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        match: Match | None = None,
    ) -> None:
        await self._rooms.tags.point(APP, TAG, digest_of(b"image"))
        await super().put(key, data, metadata=metadata, match=match)


async def test_who_may_not_push_any_more_is_told(rooms: Rooms) -> None:
    """What it has pushed is left out, as by a server."""
    await _push(rooms, _ONE)
    data, media_type = _OTHER.written.manifest, _OTHER.written.media_type
    await _OTHER.push(rooms, Tag("elsewhere"))
    await rooms.manifests.push(APP, TAG, [], data, media_type, Pusher("", "mallory"))

    contents = Contents(rooms.folder, SpoolFolder("/nowhere"))
    unions = await unions_to_look_at(rooms.folder, _NAMESPACE, contents, _LIMITS)
    report = await inspect(rooms.tags, unions, _WINDOW, APP, TAG, lambda user, _: user is None)

    why = {source.digest: source.left_out for source in report.sources}
    assert why == {
        str(_ONE.digest): None,
        str(_OTHER.digest): "it was pushed by mallory, who may not push here now",
    }
