"""Objects of any bucket: made and read in the same words, be they files or streams."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import Bucket, LocalFile
from cacheproxy.storage.folder import FolderBucket


async def keys(bucket: Bucket, prefix: str, after: str = "", folders: bool = False) -> list[str]:
    """What a listing yields, without sizes."""
    return [each.key async for each in bucket.list(prefix, after=after, folders=folders)]


async def whole(bucket: Bucket, key: str) -> tuple[bytes, dict[str, str]] | None:
    """A small object and its metadata."""
    stored = await bucket.read(key)
    return None if stored is None else (stored.data, dict(stored.metadata))


async def content(bucket: Bucket, key: str, part: ByteRange | None = None) -> bytes | None:
    """An object, or a part of it, as `open` gives it; sizes are what they are said to be."""
    opened = await bucket.open(key, part)
    if opened is None:
        return None
    assert isinstance(opened, LocalFile) == bucket.local
    if isinstance(opened, LocalFile):
        with opened:
            assert len(opened.read_at(0, 1 << 30)) == opened.size
            start, length = (0, opened.size) if part is None else (part.start, part.length)
            return opened.read_at(start, length)
    try:
        async with aclosing(opened.batches()) as batches:
            got = [bytes(batch) async for batch in batches]
    finally:
        opened.close()
    data = b"".join(got)
    assert all(got)
    assert opened.length == len(data)
    assert part is not None or opened.size == len(data)
    return data


class Files:
    """Makes files in a place from which a bucket can take them."""

    def __init__(self, bucket: Bucket, elsewhere: Path) -> None:
        self._bucket = bucket
        self._folder = Path(bucket.spool) if isinstance(bucket, FolderBucket) else elsewhere
        self._made = 0

    def make(self, data: bytes) -> str:
        self._made += 1
        path = self._folder / f"file-{self._made}"
        path.write_bytes(data)
        return str(path)

    async def upload(
        self,
        key: str,
        data: bytes,
        digest: Digest | None = None,
        *,
        known: bool = True,
        absent: bool = False,
    ) -> None:
        """Let a file of these bytes become the object; its length is `known` before, or not."""
        path = self.make(data)
        async with self._bucket.upload(path, key, len(data) if known else None) as upload:
            await upload.commit(digest, len(data), absent=absent)
