"""From a storage URL to a bucket that this process, and the workers it makes, may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import unquote, urlsplit

from cacheproxy.errors import Conflict, StorageInvalid
from cacheproxy.storage.bucket import ABSENT, Bucket
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import FORMAT_KEY

_FORMAT: Final = b"1"


@contextmanager
def claimed(url: str) -> Iterator[FolderBucket]:
    """The bucket at `file:///folder`, made if need be, owned until exit.

    Raises:
        StorageInvalid: the URL names no bucket.
        FolderInUse: another server owns it.
        Unavailable: the folder cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.path in ("", "/"):
        raise StorageInvalid(f"{url!r} is not file:///folder")
    bucket = FolderBucket(unquote(parts.path))
    lock = bucket.claim()
    try:
        yield bucket
    finally:
        os.close(lock)


async def check_format(bucket: Bucket) -> None:
    """Mark a new bucket with the version of the layout; refuse one of another version.

    Raises:
        StorageInvalid: it was written by a version that this one does not understand.
    """
    with suppress(Conflict):
        await bucket.put(FORMAT_KEY, _FORMAT, match=ABSENT)
    stored = await bucket.read(FORMAT_KEY)
    if stored is None or stored.data != _FORMAT:
        found = "nothing" if stored is None else stored.data[:20].decode(errors="replace")
        raise StorageInvalid(f"its format is {found}; this version understands format 1")
