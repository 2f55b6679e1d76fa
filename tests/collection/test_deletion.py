"""The deletion of a batch; who was paused or overtaken is tried in `test_interleavings`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cacheproxy.collection import deletion as module
from cacheproxy.collection.deletion import Deletion, TakenOver
from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.registry.batches import Batch, read_batch, write_batch
from cacheproxy.storage.bucket import Stored
from tests.collection.promises import Document, referrer
from tests.collection.rooms import APP, Store, image

_KEY = "default/gc/batches/one"
_REFERS = referrer(Document(image(b"layer"), OCI_MANIFEST), b"layer")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "spool")


async def _batch(
    store: Store, count: int, *more: str, doomed: bool = False
) -> tuple[Batch, Stored]:
    keys = [f"default/blobs/sha256/aa/{at:04}" for at in range(count)]
    for key in keys:
        store.bucket.place(key, b"content")
    batch = Batch((*keys, *more), since=1.0, doomed=doomed)
    store.bucket.place(_KEY, write_batch(batch))
    stored = await store.bucket.read(_KEY)
    assert stored is not None
    return batch, stored


def _deletion(store: Store) -> Deletion:
    return Deletion(store.bucket, store.namespace, _KEY, store.time.sleep)


async def test_all_goes_and_then_the_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In groups, whose requests are prepared when they can be sent at once."""
    monkeypatch.setattr(module, "_GROUP", 3)
    await _deletion(store).doom(*await _batch(store, 7))
    assert store.bucket.objects == {}


async def test_what_was_rescued_meanwhile_is_a_conflict(store: Store) -> None:
    batch, stored = await _batch(store, 2)
    store.bucket.place(_KEY, write_batch(batch.without(batch.keys[:1])))
    with pytest.raises(Conflict):
        await _deletion(store).doom(batch, stored)
    assert len(store.bucket.objects) == 3


async def test_whoever_goes_on_waits_for_what_was_sent_before(store: Store) -> None:
    """Longer than a request is good for, though clocks differ."""
    began = store.time.now
    await _deletion(store).go_on(*await _batch(store, 2, doomed=True))
    assert store.bucket.objects == {}
    assert store.time.now - began > module._GOOD_SECONDS + 5


async def test_a_batch_is_doomed_before_anything_is_sent(store: Store) -> None:
    seen: list[bool] = []

    async def step(call: str, key: str) -> None:
        if call == "deletion":
            seen.append(read_batch(store.bucket.objects[_KEY].data).doomed)

    store.bucket.step = step
    await _deletion(store).doom(*await _batch(store, 2))
    assert seen == [True, True]


async def test_whoever_was_overtaken_sends_nothing(store: Store) -> None:
    async def step(call: str, key: str) -> None:
        if call == "read" and key == _KEY:
            other = read_batch(store.bucket.objects[_KEY].data)
            store.bucket.place(_KEY, write_batch(Batch(other.keys, doomed=True, collector="other")))

    batch, stored = await _batch(store, 2)
    store.bucket.step = step
    with pytest.raises(TakenOver):
        await _deletion(store).doom(batch, stored)
    assert set(batch.keys) <= store.bucket.objects.keys()


async def test_a_request_that_failed_leaves_the_batch(store: Store) -> None:
    """It may still come; whoever goes on waits for that."""

    async def step(call: str, key: str) -> None:
        if call == "deletion" and key.endswith("0001"):
            raise Unavailable("lost")

    store.bucket.step = step
    with pytest.raises(Unavailable):
        await _deletion(store).doom(*await _batch(store, 3))
    left = read_batch(store.bucket.objects[_KEY].data)
    assert left.doomed
    assert len(left.keys) == 3


@pytest.mark.parametrize("state", ["whole", "gone", "damaged"])
async def test_the_record_of_a_referrer_goes_with_it(store: Store, state: str) -> None:
    """One that cannot be read any more leads nowhere."""
    key = store.namespace.manifest(APP, _REFERS.digest)
    subject = Digest(json.loads(_REFERS.data)["subject"]["digest"])
    record = store.namespace.referrer(APP, subject, _REFERS.digest)
    store.bucket.place(record, b"{}")
    if state != "gone":
        data = _REFERS.data if state == "whole" else b"{"
        store.bucket.place(key, data, {"media-type": OCI_MANIFEST})
    await _deletion(store).doom(*await _batch(store, 1, key))

    assert set(store.bucket.objects) == (set() if state == "whole" else {record})
