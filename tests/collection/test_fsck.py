"""fsck: what is wrong is told, all of it and nothing else, and what is damaged is moved away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from cacheproxy.collection import fsck
from cacheproxy.collection.budget import Budget
from cacheproxy.collection.fsck import Checked, Finding, Fsck
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import OCI_INDEX, OCI_MANIFEST
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.oci.reference import Tag
from cacheproxy.storage.bucket import Bucket, Listed, LocalFile, Stored, Stream
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from tests.api.wire import digest, manifest
from tests.fakes import FaultyBucket
from tests.registry.exports import APP, export, layer_of
from tests.registry.rooms import Bytes, Rooms

_NAMESPACE = Namespace()
_LAYER = b"a layer of some bytes"
_IMAGE = manifest(
    layers=[
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest(_LAYER),
            "size": len(_LAYER),
        }
    ]
)
_LATEST = Tag("latest")
_DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: bytes([data[0] ^ 1]) + data[1:],
    lambda data: data[:-1],
    lambda data: b"",
    lambda data: data + b"\0",
]


class _Run:
    """A run, and what it tells."""

    def __init__(self, bucket: Bucket, *, quarantine: bool = False, rate: float = 1e12) -> None:
        self.told: list[str] = []
        self.moved: list[str] = []
        self.waits: list[tuple[int, float]] = []
        self.slept = 0.0
        self.size = self.hashes = 0
        self.while_hashing: Callable[[int], None] = lambda count: None
        self.while_waiting: Callable[[], None] = lambda: None
        contents = Contents(bucket, SpoolFolder("/nowhere"))
        self._fsck = Fsck(
            bucket,
            _NAMESPACE,
            contents,
            Budget(rate),
            self,
            quarantine=quarantine,
            sleep=self._sleep,
        )

    async def done(self) -> Checked:
        return await self._fsck.run()

    async def _sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.while_waiting()

    def planned(self, size: int) -> None:
        self.size = size

    def hashed(self, count: int) -> None:
        self.hashes += count
        self.while_hashing(count)

    def found(self, finding: Finding) -> None:
        self.told.append(f"{finding.what}: {finding.problem}")

    def waiting(self, count: int, seconds: float) -> None:
        self.waits.append((count, seconds))

    def quarantined(self, what: str) -> None:
        self.moved.append(what)


async def _told(bucket: Bucket) -> list[str]:
    run = _Run(bucket)
    checked = await run.done()
    assert checked.wrong == len(run.told)
    assert checked.quarantined == run.slept == 0
    return sorted(run.told)


async def _quarantined(bucket: Bucket) -> list[str]:
    run = _Run(bucket, quarantine=True)
    checked = await run.done()
    assert checked.quarantined == len(run.moved)
    return sorted(run.moved)


async def _push_image(rooms: Rooms, tag: Tag = _LATEST) -> None:
    for content in (b"{}", _LAYER):
        await rooms.blobs.push(APP, digest_of(content), Bytes(content))
    await rooms.manifests.push(APP, tag, [], _IMAGE, OCI_MANIFEST)


async def _damage(rooms: Rooms, key: str, damage: Callable[[bytes], bytes]) -> bytes:
    """Change an object in place; what it is now."""
    stored = await rooms.folder.read(key)
    assert stored is not None
    data = damage(stored.data)
    await rooms.folder.put(key, data, metadata=stored.metadata)
    return data


async def _read(rooms: Rooms, key: str) -> Stored | None:
    return await rooms.folder.read(key)


def _blob(content: bytes) -> str:
    return _NAMESPACE.blob(digest_of(content))


async def test_what_is_whole_is_well(rooms: Rooms) -> None:
    """Every blob is hashed once, and everything is counted."""
    await _push_image(rooms)
    await export("base", "tools").push(rooms)
    run = _Run(rooms.folder)

    checked = await run.done()

    assert run.told == []
    assert run.size == run.hashes == checked.bytes
    assert (checked.blobs, checked.manifests, checked.tags) == (5, 2, 2)
    assert (checked.wrong, checked.quarantined) == (0, 0)


@pytest.mark.parametrize("damage", _DAMAGES)
async def test_a_damaged_blob_is_told_with_its_tags(
    rooms: Rooms, damage: Callable[[bytes], bytes]
) -> None:
    """One flipped bit, a cut, nothing left, too much; and the blob stays where it is."""
    await _push_image(rooms)
    await _push_image(rooms, Tag("same"))
    damaged = await _damage(rooms, _blob(_LAYER), damage)

    assert await _told(rooms.folder) == [
        f"blob {digest(_LAYER)}: its content is {digest_of(damaged)}",
        *[
            f"tag ci/app:{tag}: damaged for manifest {digest(_IMAGE)}: blob {digest(_LAYER)}"
            for tag in ("latest", "same")
        ],
    ]
    stored = await _read(rooms, _blob(_LAYER))
    assert stored is not None
    assert stored.data == damaged


@pytest.mark.parametrize("damage", _DAMAGES)
async def test_a_quarantined_blob_is_out_of_the_way(
    rooms: Rooms, damage: Callable[[bytes], bytes]
) -> None:
    """What it was is kept aside, where the next run does not look; the blob is pushed again."""
    await _push_image(rooms)
    damaged = await _damage(rooms, _blob(_LAYER), damage)

    assert await _quarantined(rooms.folder) == [f"blob {digest(_LAYER)}"]

    assert await _read(rooms, _blob(_LAYER)) is None
    aside = await _read(rooms, _NAMESPACE.quarantined(_blob(_LAYER)))
    assert aside is not None
    assert aside.data == damaged
    missing = f"tag ci/app:latest: missing for manifest {digest(_IMAGE)}: blob {digest(_LAYER)}"
    assert await _told(rooms.folder) == [missing]
    await rooms.blobs.push(APP, digest_of(_LAYER), Bytes(_LAYER))
    assert await _told(rooms.folder) == []


async def test_a_damaged_manifest_is_told_with_its_tag(rooms: Rooms) -> None:
    """It is quarantined with its media type, and can be pushed again."""
    await _push_image(rooms)
    key = _NAMESPACE.manifest(APP, digest_of(_IMAGE))
    before = await _read(rooms, key)
    damaged = await _damage(rooms, key, _DAMAGES[0])

    assert await _told(rooms.folder) == [
        f"manifest ci/app@{digest(_IMAGE)}: its content is {digest_of(damaged)}",
        f"tag ci/app:latest: it leads nowhere: missing or damaged: manifest {digest(_IMAGE)}",
    ]
    assert await _quarantined(rooms.folder) == [f"manifest ci/app@{digest(_IMAGE)}"]
    assert await _read(rooms, key) is None
    aside = await _read(rooms, _NAMESPACE.quarantined(key))
    assert aside is not None
    assert before is not None
    assert (aside.data, aside.metadata) == (damaged, before.metadata)
    await Rooms(Path(rooms.folder.spool).parent).manifests.push(
        APP, _LATEST, [], _IMAGE, OCI_MANIFEST
    )
    assert await _told(rooms.folder) == []


async def test_a_manifest_without_its_media_type_is_told(rooms: Rooms) -> None:
    """Who copies a bucket may lose the metadata."""
    await _push_image(rooms)
    await rooms.folder.put(_NAMESPACE.manifest(APP, digest_of(_IMAGE)), _IMAGE)

    assert (await _told(rooms.folder))[0].endswith(": its media type is lost")


async def test_what_is_missing_is_told_by_tag(rooms: Rooms) -> None:
    """A blob of an image; all sources of a cache; and an image itself, though it was the last
    manifest of its repository."""
    await _push_image(rooms)
    exports = (export("base", "one"), export("base", "other"))
    for each in exports:
        await each.push(rooms)
        await rooms.folder.delete(_NAMESPACE.manifest(APP, each.digest))
    await rooms.folder.delete(_blob(_LAYER))
    sources = ", ".join(sorted(each.digest for each in exports))
    cache = f"tag ci/app:cache: it leads nowhere: missing or damaged: 2 manifests, {sources}"

    assert await _told(rooms.folder) == [
        cache,
        f"tag ci/app:latest: missing for manifest {digest(_IMAGE)}: blob {digest(_LAYER)}",
    ]
    await rooms.folder.delete(_NAMESPACE.manifest(APP, digest_of(_IMAGE)))
    assert await _told(rooms.folder) == [
        cache,
        f"tag ci/app:latest: it leads nowhere: missing or damaged: manifest {digest(_IMAGE)}",
    ]


async def test_many_that_are_missing_are_counted(rooms: Rooms) -> None:
    """A line names some of them."""
    steps = [f"step {number}" for number in range(10)]
    await export(*steps).push(rooms)
    for step in steps:
        await rooms.folder.delete(_blob(layer_of(step)))

    [told] = await _told(rooms.folder)
    assert "10 blobs, sha256:" in told
    assert told.endswith(" among them")
    assert told.count("sha256:") == 4


async def test_one_missing_source_leaves_the_others(rooms: Rooms) -> None:
    """The tag still leads somewhere."""
    one, other = export("base", "one"), export("base", "other")
    for each in (one, other):
        await each.push(rooms)
    await rooms.folder.delete(_NAMESPACE.manifest(APP, one.digest))

    told = f"tag ci/app:cache: missing or damaged among its sources: manifest {one.digest}"
    assert await _told(rooms.folder) == [told]


async def test_a_damaged_tag_is_told_and_the_others_are_followed(rooms: Rooms) -> None:
    """One that cannot be read hides nothing."""
    await _push_image(rooms)
    await _push_image(rooms, Tag("other"))
    await rooms.folder.put(_NAMESPACE.tag(APP, Tag("other")), b"{")
    await rooms.folder.delete(_blob(_LAYER))

    assert await _told(rooms.folder) == [
        f"tag ci/app:latest: missing for manifest {digest(_IMAGE)}: blob {digest(_LAYER)}",
        "tag ci/app:other: it cannot be read: the tag is damaged in the bucket",
    ]


async def test_what_does_not_belong_is_told(rooms: Rooms) -> None:
    """Objects among blobs and manifests that are none."""
    await _push_image(rooms)
    hex_ = digest_of(_LAYER).hex
    strays = [
        *(f"default/blobs/{name}" for name in ("x", f"sha256/{hex_}", f"sha256/zz/{hex_}")),
        f"default/blobs/md5/ab/{hex_}",
        "default/repositories/ci/app/_manifests/sha256/x",
    ]
    for key in strays:
        await rooms.folder.put(key, b"stray")

    found = await _told(rooms.folder)

    assert await _quarantined(rooms.folder) == []
    assert [line.split()[1].rstrip(":") for line in found] == sorted(strays)
    assert {line.split()[0] for line in found} == {"object"}


async def test_what_need_not_be_there_is_not_missed(rooms: Rooms) -> None:
    """Children of an index that was pushed in part, and layers that are elsewhere by nature."""
    elsewhere = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    await rooms.blobs.push(APP, digest_of(b"{}"), Bytes(b"{}"))
    image = manifest(layers=[{"mediaType": elsewhere, "digest": digest(b"x"), "size": 1}])
    pushed = await rooms.manifests.push(APP, _LATEST, [], image, OCI_MANIFEST)
    children = [
        {"mediaType": OCI_MANIFEST, "digest": each, "size": 1}
        for each in (pushed.digest, digest(b"y"))
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    await rooms.manifests.push(APP, Tag("index"), [], index.encode(), OCI_INDEX)

    assert await _told(rooms.folder) == []


async def test_children_of_an_index_are_followed(rooms: Rooms) -> None:
    """What an image of an index lacks is missing for the index's tag."""
    await _push_image(rooms)
    child = {"mediaType": OCI_MANIFEST, "digest": digest(_IMAGE), "size": len(_IMAGE)}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
    await rooms.manifests.push(APP, Tag("index"), [], index.encode(), OCI_INDEX)
    await rooms.folder.delete(_blob(_LAYER))

    assert [line.split()[1] for line in await _told(rooms.folder)] == [
        "ci/app:index:",
        "ci/app:latest:",
    ]


async def test_what_is_pushed_meanwhile_is_not_missed(rooms: Rooms) -> None:
    """A blob that came when the listing of blobs was over is neither missing nor damaged."""
    await _push_image(rooms)
    path = Path(rooms.folder.spool).parent / _blob(_LAYER)
    path.unlink()
    run = _Run(rooms.folder)
    run.while_hashing = lambda count: _write(path, _LAYER)

    await run.done()

    assert run.told == []


async def test_what_is_mended_meanwhile_is_not_moved(rooms: Rooms) -> None:
    """It is hashed again before it is moved away, be it a blob or a manifest."""
    await _push_image(rooms)
    contents = {_blob(_LAYER): _LAYER, _NAMESPACE.manifest(APP, digest_of(_IMAGE)): _IMAGE}
    for key in contents:
        await _damage(rooms, key, _DAMAGES[0])
    run = _Run(rooms.folder, quarantine=True)

    def mend() -> None:
        for key, content in contents.items():
            _write(Path(rooms.folder.spool).parent / key, content)

    run.while_waiting = mend
    checked = await run.done()

    assert len(run.told) == 3
    assert (run.moved, checked.quarantined) == ([], 0)
    assert run.hashes == checked.bytes == run.size
    assert await _told(rooms.folder) == []


async def test_all_that_is_damaged_waits_together(rooms: Rooms) -> None:
    """Whoever runs it is told how many and for how long; not where nothing is to be moved."""
    await _push_image(rooms)
    run = _Run(rooms.folder, quarantine=True)
    await run.done()
    assert run.waits == []
    for content in (b"{}", _LAYER):
        await _damage(rooms, _blob(content), _DAMAGES[0])
    await _damage(rooms, _NAMESPACE.manifest(APP, digest_of(_IMAGE)), _DAMAGES[0])

    run = _Run(rooms.folder, quarantine=True)
    checked = await run.done()

    assert checked.quarantined == 3
    assert run.waits == [(3, run.slept)]


async def test_no_more_is_quarantined_than_servers_can_remember(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run moves the others."""
    monkeypatch.setattr(fsck, "_QUARANTINED", 1)
    await _push_image(rooms)
    for content in (b"{}", _LAYER):
        await _damage(rooms, _blob(content), _DAMAGES[0])

    first, second = await _quarantined(rooms.folder), await _quarantined(rooms.folder)

    assert sorted(first + second) == sorted(f"blob {digest(each)}" for each in (b"{}", _LAYER))


async def test_what_cannot_be_read_again_stays(rooms: Rooms) -> None:
    """The others are moved."""
    await _push_image(rooms)
    for content in (b"{}", _LAYER):
        await _damage(rooms, _blob(content), _DAMAGES[0])
    bucket = _Unreadable(rooms.folder, _blob(b"{}"))
    run = _Run(bucket, quarantine=True)
    run.while_waiting = bucket.broken.set
    await run.done()

    assert run.moved == [f"blob {digest(_LAYER)}"]


class _Unreadable(FaultyBucket):
    """A bucket of which an object cannot be read, once it is broken."""

    def __init__(self, inner: FolderBucket, key: str) -> None:
        super().__init__(inner, 0)
        self.broken = asyncio.Event()
        self._key = key

    async def open(self, key: str, part: ByteRange | None = None) -> LocalFile | Stream | None:
        if self.broken.is_set() and key == self._key:
            raise Unavailable("injected")
        return await super().open(key, part)


def _write(path: Path, content: bytes) -> None:
    """At once, as a bucket does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(".beside")
    beside.write_bytes(content)
    beside.rename(path)


async def test_what_cannot_be_read_hides_nothing_and_is_not_moved(rooms: Rooms) -> None:
    """Whichever call fails once: the run ends with that, or tells it and the damage too, and never
    moves what is whole."""
    await _push_image(rooms)
    await _damage(rooms, _blob(b"{}"), _DAMAGES[0])
    whole = await _told(rooms.folder)
    for at in count(1):
        bucket = FaultyBucket(rooms.folder, at)
        run = _Run(bucket)
        try:
            await run.done()
        except Unavailable:
            continue
        if not bucket.reached:
            break
        about = {line.partition(": ")[0] for line in run.told}
        unread = [line for line in run.told if line.endswith("it cannot be read: injected")]
        assert len(unread) == 1
        assert {line.partition(": ")[0] for line in whole} <= about
        assert await _read(rooms, _blob(_LAYER)) is not None


async def test_an_outage_ends_it(rooms: Rooms) -> None:
    """When nothing can be read, that is no damage of a million blobs."""
    await _push_image(rooms)

    with pytest.raises(Unavailable):
        await _Run(_Away(rooms.folder)).done()


class _Away(FaultyBucket):
    """A bucket that can be listed, and not read."""

    def __init__(self, inner: FolderBucket) -> None:
        super().__init__(inner, 0)

    async def list(
        self, prefix: str, *, after: str = "", folders: bool = False
    ) -> AsyncIterator[Listed]:
        async for listed in self._inner.list(prefix, after=after, folders=folders):
            yield listed

    def before(self) -> None:
        raise Unavailable("injected")


@pytest.mark.parametrize("late", [False, True])
async def test_nothing_is_lost_on_the_way_to_the_quarantine(rooms: Rooms, late: bool) -> None:
    """Whichever call fails, what was damaged is in its place or aside; and the next run goes on."""
    await _push_image(rooms)
    places = {}
    for key in (_blob(_LAYER), _NAMESPACE.manifest(APP, digest_of(_IMAGE))):
        places[key] = await _damage(rooms, key, _DAMAGES[0])
    for at in count(1):
        bucket = FaultyBucket(rooms.folder, at, late=late)
        with suppress(Unavailable):
            await _Run(bucket, quarantine=True).done()
        for key, damaged in places.items():
            for place in (key, _NAMESPACE.quarantined(key)):
                if (stored := await _read(rooms, place)) is not None:
                    assert stored.data == damaged
                    break
            else:
                pytest.fail(f"{key} is lost")
        if not bucket.reached:
            break

    assert await _told(rooms.folder) == [
        f"tag ci/app:latest: it leads nowhere: missing or damaged: manifest {digest(_IMAGE)}"
    ]
    assert await _read(rooms, _blob(_LAYER)) is None


async def test_sha512_is_checked_too(rooms: Rooms) -> None:
    """Blobs are hashed by the algorithm of their names."""
    name = digest_of(_LAYER, "sha512")
    await rooms.blobs.push(APP, name, Bytes(_LAYER))
    assert await _told(rooms.folder) == []
    damaged = await _damage(rooms, _NAMESPACE.blob(name), _DAMAGES[1])

    found = digest_of(damaged, "sha512")
    assert await _told(rooms.folder) == [f"blob {Digest(name)}: its content is {found}"]
