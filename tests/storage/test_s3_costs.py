"""How many requests what costs."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from cacheproxy.oci.digest import digest_of
from cacheproxy.storage.bucket import ABSENT, Listed, Match
from cacheproxy.storage.s3.parts import MIB
from tests.real.seaweed import SeaweedFS
from tests.storage.objects import content
from tests.storage.s3_buckets import PART, opened


class _Counted(Counter[str]):
    """Told by the bucket of each request; `sent` and `received` are the bytes of objects."""

    sent = received = 0

    def __call__(
        self, operation: str, seconds: float, status: int, sent: int, received: int
    ) -> None:
        assert seconds >= 0
        assert status in (200, 204, 206, 304, 404, 412)
        self[operation] += 1
        self.sent += sent
        self.received += received

    def take(self) -> dict[str, int]:
        """What was sent since the last time."""
        taken = dict(self)
        self.clear()
        return taken


async def test_each_small_thing_is_one_request(seaweed: SeaweedFS) -> None:
    """Nothing is asked before a write or after it; only a delete on condition looks first."""
    counted = _Counted()
    async with opened(seaweed, counted) as bucket:
        await bucket.put("a/b", b"content", match=ABSENT)
        assert counted.take() == {"PutObject": 1}
        known = await bucket.read("a/b")
        assert known is not None
        assert await bucket.read("a/b", known) is known
        assert counted.take() == {"GetObject": 2}
        await bucket.head("a/b")
        assert counted.take() == {"HeadObject": 1}
        await bucket.put("a/b", b"more", match=Match(known.version))
        assert counted.take() == {"PutObject": 1}
        await bucket.delete("a/b")
        assert counted.take() == {"DeleteObject": 1}


@pytest.mark.parametrize(
    ("size", "parts"), [(0, 0), (1, 0), (16 * MIB, 0), (16 * MIB + 1, 2), (100 * MIB, 7)]
)
async def test_an_upload_is_one_request_or_its_parts_and_two(
    seaweed: SeaweedFS, tmp_path: Path, size: int, parts: int
) -> None:
    """What fits one part is one PUT; nothing is looked up, copied or read again."""
    counted = _Counted()
    data = hashlib.shake_128(b"seed").digest(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    async with (
        opened(seaweed, counted, part_bytes=16 * MIB) as bucket,
        bucket.upload(str(path), "a/b", size) as upload,
    ):
        for written in range(0, size, MIB):
            await upload.wrote(written)
        await upload.commit(digest_of(data), size)
        sent = counted.take()
        assert await content(bucket, "a/b") == data
        assert counted.sent == counted.received == size

    several = {"CreateMultipartUpload": 1, "UploadPart": parts, "CompleteMultipartUpload": 1}
    assert sent == (several if parts else {"PutObject": 1})


@pytest.mark.parametrize(
    ("sizes", "costs"),
    [
        ([3], {"CopyObject": 1}),
        ([4 * PART + 1], {"UploadPartCopy": 3}),
        ([3, 0, 4], {"GetObject": 2, "PutObject": 1}),
        ([PART, PART, 1], {"UploadPartCopy": 3}),
        ([1, PART + 1, 3 * PART], {"GetObject": 2, "UploadPart": 1, "UploadPartCopy": 2}),
        ([0], {"PutObject": 1}),
        ([], {"PutObject": 1}),
    ],
)
async def test_a_join_sends_little(
    seaweed: SeaweedFS, tmp_path: Path, sizes: list[int], costs: dict[str, int]
) -> None:
    """S3 copies what it can, also more than one copy may take, and the bytes are right."""
    counted = _Counted()
    data = [hashlib.shake_128(b"%d" % number).digest(size) for number, size in enumerate(sizes)]
    parts = [Listed(f"parts/{number}", size) for number, size in enumerate(sizes)]
    async with opened(seaweed, counted) as bucket:
        for part, bytes_ in zip(parts, data, strict=True):
            (tmp_path / "file").write_bytes(bytes_)
            async with bucket.upload(str(tmp_path / "file"), part.key, part.size) as upload:
                await upload.commit(digest_of(bytes_), part.size)
        counted.clear()
        await bucket.join(parts, "whole")
        sent = counted.take()
        assert await content(bucket, "whole") == b"".join(data)

    several = {"CreateMultipartUpload": 1, "CompleteMultipartUpload": 1}
    assert sent == (costs | several if "UploadPartCopy" in costs else costs)
