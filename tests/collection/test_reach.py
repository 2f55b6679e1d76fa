"""What is reachable, from records as they are stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.collection.evictions import Evicted
from cacheproxy.collection.marks import Marks
from cacheproxy.collection.reach import led_to, mark_reachable
from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Tag
from cacheproxy.registry.registry import Registry
from cacheproxy.registry.sources import Source
from cacheproxy.registry.tags import TagRecord
from tests.collection.promises import Document, index, referrer
from tests.collection.rooms import APP, Store, image
from tests.registry.exports import export

_IMAGE = Document(image(b"config", b"layer"), OCI_MANIFEST)
_OTHER = Document(image(b"other"), OCI_MANIFEST)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "spool")


async def _push(replica: Registry, document: Document, tag: str = "") -> None:
    reference = Tag(tag) if tag else document.digest
    await replica.manifests.push(APP, reference, [], document.data, document.media_type)


async def _reached(store: Store, *, young: float | None = None, evicted: Evicted) -> set[str]:
    """The keys that are marked; nothing is young if that is not given."""
    registry = await store.replica()
    candidates = [*store.bucket.objects, *map(_blob, (b"config", b"layer", b"other", b"third"))]
    with Marks() as marks:
        since = store.time.now + 1 if young is None else young
        await mark_reachable(
            store.bucket, store.namespace, registry.tags, APP, since, marks, evicted
        )
        return await marks.has(candidates)


def _blob(content: bytes) -> str:
    return Store(Path()).namespace.blob(digest_of(content))


def _manifest(document: Document) -> str:
    return Store(Path()).namespace.manifest(APP, document.digest)


async def test_a_tag_leads_to_a_manifest_and_its_blobs(store: Store) -> None:
    await _push(await store.replica(), _IMAGE, "latest")
    await _push(await store.replica(), _OTHER)

    found = await _reached(store, evicted=Evicted())
    assert found == {_manifest(_IMAGE), _blob(b"config"), _blob(b"layer")}


async def test_an_index_leads_to_its_children_and_theirs(store: Store) -> None:
    """Those that are there: indexes may be of things that nobody has pushed."""
    replica = await store.replica()
    both = index(_IMAGE, _OTHER)
    await _push(replica, _IMAGE)
    await _push(replica, both, "latest")

    found = await _reached(store, evicted=Evicted())
    assert {_manifest(both), _manifest(_IMAGE), _blob(b"config"), _blob(b"layer")} <= found
    assert _blob(b"other") not in found


async def test_referrers_are_reached_by_their_subject(store: Store) -> None:
    """Also those of a child, and those of referrers."""
    replica = await store.replica()
    signature = referrer(_IMAGE, b"other")
    of_it = referrer(signature, b"third")
    for each in (_IMAGE, signature, of_it):
        await _push(replica, each)
    assert _manifest(signature) not in await _reached(store, evicted=Evicted())
    await _push(replica, index(_IMAGE), "latest")

    found = await _reached(store, evicted=Evicted())
    assert {_manifest(signature), _manifest(of_it), _blob(b"other"), _blob(b"third")} <= found


async def test_what_is_young_leads_on_like_a_tag(store: Store) -> None:
    replica = await store.replica()
    await _push(replica, _OTHER)
    store.time.now += 100
    await _push(replica, _IMAGE)

    found = await _reached(store, young=store.time.now, evicted=Evicted())
    assert found == {_manifest(_IMAGE), _blob(b"config"), _blob(b"layer")}


async def test_an_index_of_blobs_leads_to_these(store: Store) -> None:
    """As BuildKit's older caches are."""
    replica = await store.replica()
    made = export("run", form="index")
    written = Document(made.written.manifest, made.written.media_type)
    await _push(replica, written, "cache")
    with Marks() as marks:
        await mark_reachable(
            store.bucket, store.namespace, replica.tags, APP, 1e12, marks, Evicted()
        )
        named = [*map(_blob, made.layers.values()), _blob(made.written.config)]
        assert await marks.has(named) == set(named)


async def test_a_cache_tag_leads_to_its_sources_and_their_union() -> None:
    """The union is remade from the sources, which nobody else may lead to."""
    union, source = digest_of(b"union"), digest_of(b"source")
    record = TagRecord(union, sources=(Source(str(source), 0, 0, 0),))
    assert led_to(record) == [union, source]


async def test_what_is_evicted_leads_nowhere_unless_it_was_changed(store: Store) -> None:
    replica = await store.replica()
    await _push(replica, _IMAGE, "latest")
    record = await replica.tags.read(APP, Tag("latest"))
    assert record is not None
    evicted = Evicted(tags={(APP, Tag("latest")): record})
    assert await _reached(store, evicted=evicted) == set()
    store.time.now += 3600
    await _push(replica, _IMAGE, "latest")

    assert _manifest(_IMAGE) in await _reached(store, evicted=evicted)


@pytest.mark.parametrize("what", ["manifest", "tag", "metadata"])
async def test_what_cannot_be_read_ends_it(store: Store, what: str) -> None:
    """It may lead anywhere."""
    await _push(await store.replica(), _IMAGE, "latest")
    if what == "tag":
        store.bucket.place(store.namespace.tag(APP, Tag("latest")), b"{")
    else:
        data = b"{" if what == "manifest" else _IMAGE.data
        metadata = {"media-type": OCI_MANIFEST} if what == "manifest" else {}
        store.bucket.place(_manifest(_IMAGE), data, metadata)

    with pytest.raises(Unavailable):
        await _reached(store, evicted=Evicted())
