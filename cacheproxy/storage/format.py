"""The version of the layout, which a bucket carries."""

from contextlib import suppress
from typing import Final

from cacheproxy.errors import Conflict, StorageInvalid
from cacheproxy.storage.bucket import ABSENT, Bucket
from cacheproxy.storage.layout import FORMAT_KEY

_FORMAT: Final = b"1"


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
