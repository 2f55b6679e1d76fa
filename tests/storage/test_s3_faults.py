"""What becomes of a call to S3 that goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.storage.bucket import ABSENT, Head, Listed, Match
from cacheproxy.storage.s3.bucket import S3Bucket
from tests.real.seaweed import SeaweedFS
from tests.s3.faults import Fault, What
from tests.s3.proxy import S3Proxy
from tests.storage.objects import content, keys, whole
from tests.storage.s3_buckets import PART, hasty, opened

_PASSING = [What.REFUSE, What.RESET, What.ERROR, What.SLOW_DOWN]
_LARGE = b"x" * (2 * PART + 1)
_HASTY = {"read": 0.3, "write": 0.3}


@pytest.fixture
async def proxy(seaweed: SeaweedFS) -> AsyncIterator[S3Proxy]:
    async with S3Proxy.running(seaweed.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def bucket(seaweed: SeaweedFS, proxy: S3Proxy) -> AsyncIterator[S3Bucket]:
    async with opened(seaweed, endpoint_url=proxy.url) as bucket:
        yield bucket


async def _upload(bucket: S3Bucket, path: Path, data: bytes, *, absent: bool = False) -> None:
    path.write_bytes(data)
    async with bucket.upload(str(path), "a/b", len(data)) as upload:
        await upload.commit(digest_of(data), len(data), absent=absent)


@pytest.mark.parametrize("what", _PASSING)
async def test_what_passes_is_tried_again(bucket: S3Bucket, proxy: S3Proxy, what: What) -> None:
    """One call that fails is not seen, whatever it was for."""
    proxy.fail(
        *(
            Fault(operation, None, 1, what)
            for operation in ("PutObject", "GetObject", "HeadObject", "ListObjectsV2")
        ),
        Fault("DeleteObject", None, 1, what),
    )
    await bucket.put("a/b", b"content")

    assert await whole(bucket, "a/b") == (b"content", {})
    assert await bucket.head("a/b") == Head(7)
    assert await keys(bucket, "a/") == ["a/b"]
    await bucket.delete("a/b")
    assert len(proxy.fired) == 5


@pytest.mark.parametrize("what", _PASSING)
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(
    "operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"]
)
async def test_upload_is_stored_though_one_call_fails(
    bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path, operation: str, what: What, absent: bool
) -> None:
    """Also when it was done and only its answer was lost: then what is there is its own."""
    proxy.fail(Fault(operation, None, 1, what))
    await _upload(bucket, tmp_path / "file", _LARGE, absent=absent)

    assert await content(bucket, "a/b") == _LARGE
    assert len(proxy.fired) == 1


@pytest.mark.parametrize("size", [7, PART])
async def test_writer_whose_answer_was_lost_has_won(
    bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path, size: int
) -> None:
    """A write on condition is not refused for what it has itself written."""
    proxy.fail(Fault("PutObject", None, 1, What.RESET, times=3))
    await bucket.put("a/small", b"x", match=ABSENT)
    stored = await bucket.read("a/small")
    assert stored is not None
    await bucket.put("a/small", b"y", match=Match(stored.version))
    await _upload(bucket, tmp_path / "file", b"x" * size, absent=True)

    assert await whole(bucket, "a/small") == (b"y", {})
    assert len(proxy.fired) == 3


async def test_writer_of_equal_bytes_has_lost_though_an_answer_was(
    bucket: S3Bucket, proxy: S3Proxy
) -> None:
    """Who finds bytes like its own that another one wrote has not won."""
    await bucket.put("a/b", b"content", match=ABSENT)
    proxy.fail(Fault("PutObject", None, 1, What.REFUSE))

    with pytest.raises(Conflict):
        await bucket.put("a/b", b"content", match=ABSENT)


async def test_delete_whose_answer_was_lost_is_done(bucket: S3Bucket, proxy: S3Proxy) -> None:
    """On condition, too."""
    await bucket.put("a/b", b"content")
    stored = await bucket.read("a/b")
    assert stored is not None
    proxy.fail(Fault("DeleteObject", None, 1, What.RESET))

    await bucket.delete("a/b", match=Match(stored.version))
    assert await bucket.head("a/b") is None


async def test_record_that_was_cut_is_read_again(bucket: S3Bucket, proxy: S3Proxy) -> None:
    """A small object is whole or not read."""
    await bucket.put("a/b", b"content" * 100)
    proxy.fail(Fault("GetObject", None, 1, What.CUT, at=10))

    assert await whole(bucket, "a/b") == (b"content" * 100, {})


@pytest.mark.parametrize("what", [What.CUT, What.STALL_BODY])
async def test_stream_that_is_cut_or_stalls_is_unavailable(
    seaweed: SeaweedFS, proxy: S3Proxy, what: What
) -> None:
    """Never a short object, and never one without an end."""
    async with opened(seaweed, endpoint_url=proxy.url, stall_seconds=0.3) as bucket:
        await bucket.put("a/b", b"x" * 100_000)
        proxy.fail(Fault("GetObject", None, 1, what, at=50_000))
        stream = await bucket.open("a/b")
        assert stream is not None
        with pytest.raises(Unavailable):
            async with aclosing(stream.batches()) as batches:
                [batch async for batch in batches]
        proxy.release()


async def test_what_does_not_answer_is_given_up(bucket: S3Bucket, proxy: S3Proxy) -> None:
    """Reads and writes fail in their time, and work again when S3 does."""
    proxy.fail(Fault(None, None, 1, What.STALL, times=None))
    began = time.monotonic()
    for call in (bucket.ping(), bucket.head("a"), bucket.read("a"), bucket.put("a/b", b"content")):
        with hasty(bucket, **_HASTY), pytest.raises(Unavailable):
            await call
    assert time.monotonic() - began < 10  # for which a single one of them would else be waited for
    proxy.reset()
    proxy.release()

    await bucket.put("a/b", b"content")
    assert await whole(bucket, "a/b") == (b"content", {})


async def test_s3_that_is_gone_is_unavailable_until_it_is_back(
    bucket: S3Bucket, proxy: S3Proxy
) -> None:
    """The same bucket goes on, without a restart."""
    await bucket.put("a/b", b"content")
    proxy.down()
    with hasty(bucket, **_HASTY):
        for call in (bucket.ping(), bucket.head("a/b"), bucket.open("a/b"), bucket.delete("a/b")):
            with pytest.raises(Unavailable) as told:
                await call
            assert told.value.__cause__ is not None
        with pytest.raises(Unavailable):
            await keys(bucket, "a/")
    proxy.up()

    assert await bucket.head("a/b") == Head(7)


async def test_upload_that_fails_or_is_left_leaves_nothing(
    bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path
) -> None:
    """Its parts go, however it ends; nothing is for the sweep."""
    path = tmp_path / "file"
    path.write_bytes(_LARGE)
    proxy.delay = 0.02

    async def push() -> None:
        async with bucket.upload(str(path), "a/b", None) as upload:
            await upload.wrote(len(_LARGE))
            await asyncio.Event().wait()

    pushing = asyncio.create_task(push())
    while not any(call.operation == "UploadPart" for call in proxy.calls):
        await asyncio.sleep(0.01)
    pushing.cancel()
    await asyncio.wait([pushing])
    async with bucket.upload(str(path), "a/b", None) as upload:
        await upload.wrote(len(_LARGE))

    assert pushing.cancelled()
    assert await bucket.head("a/b") is None
    assert await bucket.sweep(0) == 0


async def test_part_that_fails_fails_the_upload(
    bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path
) -> None:
    """The commit says so, and what was not sent is still needed."""
    path = tmp_path / "file"
    path.write_bytes(_LARGE)
    proxy.fail(Fault("UploadPart", None, 1, What.ERROR, times=None))
    async with bucket.upload(str(path), "a/b", len(_LARGE)) as upload:
        with hasty(bucket, **_HASTY):
            await upload.wrote(len(_LARGE))
            assert upload.sent == 0
            with pytest.raises(Unavailable):
                await upload.commit(None, len(_LARGE))
        assert upload.sent == 0

    assert await bucket.head("a/b") is None
    assert await bucket.sweep(0) == 0


async def test_sweep_takes_what_a_dead_writer_left(
    bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path
) -> None:
    """Uploads that nobody aborted go, but not before their time."""
    proxy.fail(Fault("UploadPart", None, 1, What.STALL, times=None))
    path = tmp_path / "file"
    path.write_bytes(_LARGE)
    async with bucket.upload(str(path), "a/b", None) as upload:
        await upload.wrote(len(_LARGE))
        while not any(call.operation == "UploadPart" for call in proxy.calls):
            await asyncio.sleep(0.01)
        assert await bucket.sweep(3600) == 0
        assert await bucket.sweep(0) == 1
    assert await bucket.sweep(0) == 0


@pytest.mark.parametrize("part_bytes", [PART, 4 * PART])
async def test_large_file_that_was_to_be_new_conflicts(
    seaweed: SeaweedFS, tmp_path: Path, part_bytes: int
) -> None:
    """S3 may answer before it has read the file; its answer is heard, and nothing is left."""
    async with opened(seaweed, part_bytes=part_bytes) as bucket:
        await bucket.put("a/b", b"first")
        with pytest.raises(Conflict):
            await _upload(bucket, tmp_path / "file", _LARGE, absent=True)

        assert await whole(bucket, "a/b") == (b"first", {})
        assert await bucket.sweep(0) == 0


async def test_a_source_that_has_gone_fails_the_join(bucket: S3Bucket) -> None:
    """At once: it is not coming back, and nothing appears or is left."""
    await bucket.put("one", b"one")
    for sizes in ((3, 4), (3, 2 * PART), (0, PART)):
        began = time.monotonic()
        parts = [Listed("one", sizes[0]), Listed("gone", sizes[1])]
        with pytest.raises(Unavailable):
            await bucket.join(parts, "whole")
        assert time.monotonic() - began < 20  # writes are tried for 30

    assert await bucket.head("whole") is None
    assert await bucket.sweep(0) == 0
