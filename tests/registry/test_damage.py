"""Records that are damaged in the bucket: never believed, never a fault of the server's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.tickets import load_secret
from cacheproxy.storage.layout import SECRET_KEY, Namespace
from tests.api.wire import manifest
from tests.registry.rooms import Bytes, Rooms

_APP = Repository("ci/app")
_TAG = Tag("latest")
_SUBJECT = digest_of(b"subject")
_MANIFEST = manifest(subject={"mediaType": OCI_MANIFEST, "digest": _SUBJECT, "size": 7})
_DAMAGE = [b"", b'{"digest":', b"\xff", b'{"digest":"sha256:abc"}']


async def _damage(place: Path, prefix: str, data: bytes) -> Rooms:
    """A registry with a tagged manifest of which one object is other bytes, and that has not read
    any of it."""
    rooms = Rooms(place)
    await rooms.manifests.push(_APP, _TAG, [], _MANIFEST, OCI_MANIFEST)
    await rooms.blobs.push(_APP, digest_of(b"blob"), Bytes(b"blob"))
    await rooms.blobs.delete(_APP, digest_of(b"blob"))
    [key] = [listed.key async for listed in rooms.folder.list(prefix)]
    stored = await rooms.folder.read(key)
    assert stored is not None
    await rooms.folder.put(key, data, metadata=stored.metadata)
    return Rooms(place)


@pytest.mark.parametrize("data", _DAMAGE)
async def test_a_damaged_tag_is_unavailable_until_it_is_mended(tmp_path: Path, data: bytes) -> None:
    """It is not remembered."""
    rooms = await _damage(tmp_path, Namespace().tags(_APP), data)
    with pytest.raises(Unavailable):
        await rooms.tags.read(_APP, _TAG)
    await Rooms(tmp_path).folder.delete(Namespace().tag(_APP, _TAG))

    await rooms.tags.point(_APP, _TAG, digest_of(_MANIFEST))
    record = await rooms.tags.read(_APP, _TAG)
    assert record is not None
    assert record.digest == digest_of(_MANIFEST)


async def test_a_damaged_manifest_is_unavailable(tmp_path: Path) -> None:
    """What is read has the digest that was asked for, or is not served."""
    rooms = await _damage(tmp_path, Namespace().manifests(_APP), _MANIFEST.replace(b"2", b"3"))
    for reference in (_TAG, digest_of(_MANIFEST)):
        with pytest.raises(Unavailable):
            await rooms.manifests.get(_APP, reference)


@pytest.mark.parametrize("data", _DAMAGE)
async def test_a_damaged_referrer_is_unavailable(tmp_path: Path, data: bytes) -> None:
    """A list without it would be believed."""
    rooms = await _damage(tmp_path, Namespace().referrers(_APP, _SUBJECT), data)
    with pytest.raises(Unavailable):
        [each async for each in rooms.referrers.list(_APP, _SUBJECT)]


@pytest.mark.parametrize("data", _DAMAGE[:3])
async def test_a_damaged_set_of_hidden_blobs_is_unavailable(tmp_path: Path, data: bytes) -> None:
    """The poll says so too, and is not ended by it."""
    rooms = await _damage(tmp_path, Namespace().all_deleted(), data)
    with pytest.raises(Unavailable):
        await rooms.hidden.poll()
    with pytest.raises(Unavailable):
        await rooms.hidden.add(_APP, _SUBJECT)


async def test_a_secret_that_is_cut_is_not_used(tmp_path: Path) -> None:
    """With it a server would refuse what the others sign."""
    rooms = Rooms(tmp_path)
    await rooms.folder.put(SECRET_KEY, b"short")
    with pytest.raises(Unavailable):
        await load_secret(rooms.folder)
