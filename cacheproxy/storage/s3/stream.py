"""An object of S3, or a part of one, on its way here."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import aiohttp

from cacheproxy.errors import Unavailable
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.pieces import Pieces
from cacheproxy.storage.read_ahead import ReadAhead

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)


class S3Stream:
    """See `Stream`; `cut` is whether S3 sends all of the object though a part was asked for."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        ahead: ReadAhead,
        size: int,
        part: ByteRange,
        cut: bool,
        pusher: str,
    ) -> None:
        self.size = size
        self.pusher = pusher
        self.length: int | None = part.length
        self.cut = cut
        self._response = response
        self._ahead = ahead
        self._skip = part.start if cut else 0
        self._left = part.length

    @classmethod
    def of(
        cls,
        response: aiohttp.ClientResponse,
        ahead: ReadAhead,
        part: ByteRange | None,
        pusher: str = "",
    ) -> "S3Stream":
        """The answer to a request for `part`, or for all.

        Raises:
            Unavailable: it is not what was asked for. It is closed then.
        """
        try:
            return cls._of(response, ahead, part, pusher)
        except BaseException:
            response.close()
            raise

    @classmethod
    def _of(
        cls,
        response: aiohttp.ClientResponse,
        ahead: ReadAhead,
        part: ByteRange | None,
        pusher: str,
    ) -> "S3Stream":
        if part is not None and (header := response.headers.get("Content-Range")) is not None:
            found = _CONTENT_RANGE.fullmatch(header)
            if found is None or (int(found[1]), int(found[2])) != (part.start, part.last):
                raise Unavailable("the bucket sent another part than it was asked for")
            return cls(response, ahead, int(found[3]), part, cut=False, pusher=pusher)
        size = response.content_length
        if response.status != 200 or size is None:
            raise Unavailable("the bucket sent an object without its size")
        whole = ByteRange(0, size)
        if part is not None and part.start + part.length > size:
            raise Unavailable("the object in the bucket is shorter than it was")
        return cls(response, ahead, size, part or whole, part is not None, pusher)

    async def batches(self) -> AsyncGenerator[Pieces, None]:
        try:
            async with aclosing(self._ahead.batches(self._response.content)) as batches:
                async for batch in batches:
                    if (wanted := self._wanted(batch)).size:
                        yield wanted
                    if self.cut and not self._left:
                        break
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable("the bucket stopped in the middle of an object") from error
        finally:
            self.close()
        if self._left:
            raise Unavailable("the bucket sent less than it announced")

    def close(self) -> None:
        """Cuts the connection, unless all has come: then it has gone back to the others."""
        self._response.close()

    def _wanted(self, batch: Pieces) -> Pieces:
        skipped = min(self._skip, batch.size)
        wanted = batch.part(skipped, skipped + self._left)
        self._skip -= skipped
        self._left -= wanted.size
        return wanted
