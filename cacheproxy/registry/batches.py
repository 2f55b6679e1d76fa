"""Batches: the objects that are about to be deleted, as records that all replicas read.

    condemned   What they name is not needed by anything, as far as is known. It still answers, and
                whoever promises it to a client takes it out of the batch: it is rescued.
    doomed      It has been condemned for longer than any promise lasts. It is being deleted, and
                what is written there anew waits until the batch is empty.
    empty       All of it is rescued, or deleted. It says nothing any more and is removed.

    damaged     What they name has another content than it should. It answers as before, and no
                promise takes it out, as none about it is worth anything; who writes it anew does.
                It can be doomed too, see `collection/quarantine.py`.

All are one object, changed by compare-and-swap, so a rescue and a doom cannot both succeed. It is
removed only when it is empty, since not every bucket that keeps a condition on a write keeps one on
a delete. Two collectors can condemn one object in two batches; it is rescued when it is in none.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from cacheproxy.errors import Unavailable

VALID_SECONDS: Final = 300.0
"""How old may be what a replica knows of the batches when it makes a promise."""

WORK_SECONDS: Final = 300.0
"""How long it may take from there until the promise is all that is left to do; who takes longer
looks again, or fails."""

PAUSE_SECONDS: Final = 300.0
"""How long a replica may be paused then, before its answer is out: nobody can look again there."""

WRITTEN_SECONDS: Final = VALID_SECONDS + WORK_SECONDS
"""How long after a batch could be read by everybody a push may still be stored without it, and be
acknowledged; what is left to do then is the answer."""

SLACK_SECONDS: Final = WRITTEN_SECONDS + PAUSE_SECONDS
"""How long after a batch could be read by everybody a promise may still be made without it."""


class Batch(msgspec.Struct, frozen=True):
    """`keys` are those of objects of the bucket.

    `since` is when it was there for sure, by the clock of the bucket; None: not known yet.
    """

    keys: tuple[str, ...]
    since: float | None = None
    doomed: bool = False
    damaged: bool = False
    collector: str = ""
    """Who deletes what is doomed; who takes over tells, and the one before can do nothing more."""
    version: int = 1

    def without(self, keys: Collection[str]) -> "Batch":
        left = tuple([key for key in self.keys if key not in keys])
        return msgspec.structs.replace(self, keys=left)


_decoder: Final = msgspec.json.Decoder(Batch)


def read_batch(data: bytes) -> Batch:
    """Raises Unavailable: it is damaged."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable("a batch of what is to be deleted is damaged in the bucket") from error


def write_batch(batch: Batch) -> bytes:
    return msgspec.json.encode(batch)
