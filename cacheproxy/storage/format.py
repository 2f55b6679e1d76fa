"""The version of the layout, which a bucket carries."""

from contextlib import suppress
from typing import Final

from cacheproxy.errors import Conflict, StorageInvalid
from cacheproxy.storage.bucket import ABSENT, Bucket
from cacheproxy.storage.layout import FORMAT_KEY

FORMAT: Final = b"1"


async def check_format(bucket: Bucket) -> None:
    """Mark a new bucket with the version of the layout; refuse one of another version.

    Raises:
        StorageInvalid: it was written by a version that this one does not understand.
    """
    with suppress(Conflict):
        await bucket.put(FORMAT_KEY, FORMAT, match=ABSENT)
    if not await has_format(bucket):
        raise StorageInvalid("its format is nothing; this version understands format 1")


async def has_format(bucket: Bucket) -> bool:
    """Whether the bucket carries a version; nothing is written. Raises as `check_format`."""
    stored = await bucket.read(FORMAT_KEY)
    if stored is not None and stored.data != FORMAT:
        found = stored.data[:20].decode(errors="replace")
        raise StorageInvalid(f"its format is {found}; this version understands format 1")
    return stored is not None
