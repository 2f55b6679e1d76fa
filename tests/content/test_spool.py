"""The spool: what becomes an object, and what never does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.content.spool import Spool, SpoolFolder
from cacheproxy.errors import (
    BlobUploadInvalid,
    Conflict,
    DigestInvalid,
    SizeInvalid,
    Unavailable,
)
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.storage.folder import FolderBucket
from tests.fakes import FaultyBucket


class _Batches:
    """A body of these batches that announces `length`; it waits for `go` before the last one."""

    def __init__(
        self, *batches: bytes, length: int | None = None, go: asyncio.Event | None = None
    ) -> None:
        self.length = length
        self.reached = asyncio.Event()
        self.closed = False
        self._batches = batches
        self._go = go

    async def batches(self) -> AsyncGenerator[bytes, None]:
        try:
            for batch in self._batches[:-1]:
                yield batch
            self.reached.set()
            if self._go is not None:
                await self._go.wait()
            for batch in self._batches[-1:]:
                yield batch
        finally:
            self.closed = True


class _Broken:
    """A body whose sender goes away after some bytes."""

    length: int | None = None

    async def batches(self) -> AsyncGenerator[bytes, None]:
        yield b"some"
        raise BlobUploadInvalid("the client went away")


@pytest.fixture
def bucket(tmp_path: Path) -> FolderBucket:
    return FolderBucket(str(tmp_path))


@pytest.fixture
def spools(bucket: FolderBucket) -> SpoolFolder:
    return SpoolFolder(bucket.spool, bucket)


async def _store(
    spools: SpoolFolder,
    content: bytes,
    digest: Digest | None = None,
    *,
    algorithm: str = "sha256",
    absent: bool = False,
) -> None:
    async with spools.new(algorithm) as spool:
        await spool.fill(_Batches(content))
        await spool.commit("a/b", digest, absent=absent)


async def _content(bucket: FolderBucket, key: str) -> bytes | None:
    stored = await bucket.read(key)
    return None if stored is None else stored.data


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    algorithm=st.sampled_from(["sha256", "sha512"]),
    announced=st.booleans(),
)
async def test_spool_of_the_right_digest_becomes_the_object(
    bucket: FolderBucket,
    spools: SpoolFolder,
    batches: list[bytes],
    algorithm: str,
    announced: bool,
) -> None:
    """All that came, in its order, however it was cut and whether its length was known."""
    whole = b"".join(batches)
    async with spools.new(algorithm) as spool:
        await spool.fill(_Batches(*batches, length=len(whole) if announced else None))
        await spool.commit("a/b", digest_of(whole, algorithm))

    assert (await _content(bucket, "a/b"), spool.size) == (whole, len(whole))
    assert os.listdir(bucket.spool) == []


async def test_spool_of_another_digest_stores_nothing(
    bucket: FolderBucket, spools: SpoolFolder
) -> None:
    """What is not what it was said to be never gets the name."""
    with pytest.raises(DigestInvalid):
        await _store(spools, b"content", digest_of(b"other"))

    assert await bucket.head("a/b") is None
    assert os.listdir(bucket.spool) == []


async def test_spool_of_another_algorithm_than_its_digest_stores_nothing(
    bucket: FolderBucket, spools: SpoolFolder
) -> None:
    """A digest that was not computed cannot match."""
    with pytest.raises(DigestInvalid):
        await _store(spools, b"content", digest_of(b"content", "sha512"), algorithm="sha256")

    assert await bucket.head("a/b") is None


@pytest.mark.parametrize("length", [1, 6, 8, 100])
async def test_body_of_another_length_than_announced_is_refused(
    bucket: FolderBucket, spools: SpoolFolder, length: int
) -> None:
    """Fewer bytes and more bytes alike, and nothing of them stays."""
    with pytest.raises(SizeInvalid):
        async with spools.new() as spool:
            await spool.fill(_Batches(b"cont", b"ent", length=length))

    assert os.listdir(bucket.spool) == []


async def test_spool_without_commit_is_discarded(bucket: FolderBucket, spools: SpoolFolder) -> None:
    """Only a commit makes an object."""
    async with spools.new() as spool:
        await spool.fill(_Batches(b"content"))
        assert len(os.listdir(bucket.spool)) == 1

    assert os.listdir(bucket.spool) == []


async def test_spool_of_a_sender_that_fails_is_discarded(
    bucket: FolderBucket, spools: SpoolFolder
) -> None:
    """The sender's error is the caller's, and nothing stays."""

    async def receive() -> None:
        async with spools.new() as spool:
            await spool.fill(_Broken())

    with pytest.raises(BlobUploadInvalid):
        await receive()
    assert os.listdir(bucket.spool) == []


async def test_spool_of_a_cancelled_request_is_discarded(
    bucket: FolderBucket, spools: SpoolFolder
) -> None:
    """A client that hangs up in the middle leaves neither a file nor an open body."""
    body = _Batches(b"some", b"rest", go=asyncio.Event())

    async def receive() -> None:
        async with spools.new() as spool:
            await spool.fill(body)

    request = asyncio.create_task(receive())
    await body.reached.wait()
    assert len(os.listdir(bucket.spool)) == 1
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)

    assert request.cancelled()
    assert body.closed
    assert os.listdir(bucket.spool) == []


async def test_spool_leaves_no_descriptor_open(spools: SpoolFolder) -> None:
    """Neither a commit nor a failure does."""
    before = len(os.listdir("/proc/self/fd"))
    for digest in (digest_of(b"content"), digest_of(b"other")):
        try:
            await _store(spools, b"content", digest)
        except DigestInvalid:
            continue

    assert len(os.listdir("/proc/self/fd")) == before


async def test_spool_is_filled_batch_by_batch(bucket: FolderBucket, spools: SpoolFolder) -> None:
    """What came is in the file before more is asked for, so memory is bounded by one batch."""
    go = asyncio.Event()
    body = _Batches(b"some", b"rest", go=go)

    async def receive(spool: Spool) -> None:
        await spool.fill(body)

    async with spools.new() as spool:
        filling = asyncio.create_task(receive(spool))
        await body.reached.wait()
        [file] = os.scandir(bucket.spool)
        assert file.stat().st_size == 4
        go.set()
        await filling

    assert spool.size == 8


async def test_spool_for_what_must_be_absent_conflicts_with_what_is_there(
    bucket: FolderBucket, spools: SpoolFolder
) -> None:
    """The object that was first stays, and the file of the second goes."""
    await bucket.put("a/b", b"first")
    with pytest.raises(Conflict):
        await _store(spools, b"second", absent=True)

    assert await _content(bucket, "a/b") == b"first"
    assert os.listdir(bucket.spool) == []


async def test_spool_of_a_bucket_that_fails_is_discarded(bucket: FolderBucket) -> None:
    """A commit that did not happen leaves no file."""
    spools = SpoolFolder(bucket.spool, FaultyBucket(bucket, 1))
    with pytest.raises(Unavailable):
        await _store(spools, b"content")

    assert await bucket.head("a/b") is None
    assert os.listdir(bucket.spool) == []


async def test_spool_in_a_folder_that_went_is_unavailable(
    bucket: FolderBucket, tmp_path: Path
) -> None:
    """The system's own words are not the client's."""
    with pytest.raises(Unavailable):
        async with SpoolFolder(str(tmp_path / "gone"), bucket).new():
            pass
