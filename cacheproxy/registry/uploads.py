"""Upload sessions (distribution-spec, "Pushing blobs").

Beginning one stores nothing: the session's name is a signed ticket that any server with the same
secret can check. What follows decides what it costs:

- POST, PUT (all of BuildKit's): the body goes through one spool into its place. The session leaves
  no trace, and a PUT that is repeated because its answer was lost works again. Whether there are
  chunks is not looked up for it: from the first one on a session has another name, see `chunked`.
- POST, PATCH..., PUT: the digest comes last, so each PATCH is stored as a chunk, named by its
  offset, before it is answered. The chunks are the session's whole state: any server can continue,
  and two writers at one offset cannot both win. PUT reads them again to verify, joins them into
  the blob, then closes the session. Bytes that come with the PUT are no chunk, so that it can be
  repeated: they are stored, once they are verified, under the digest that they lead to.

         PATCH at the end                    PUT, right digest
    open ----------------> open with chunks ------------------> closed
      \\                        |                                 ^
       '------------------------+---------------------------------'
                         DELETE, or too old

A closed session is unknown to its client. Its chunks, and those of sessions older than their
lifetime, are removed by `sweep`.
"""

from functools import partial
from typing import Final

from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import Body
from cacheproxy.errors import (
    BlobUploadUnknown,
    Conflict,
    DigestInvalid,
    SizeInvalid,
    UploadOutOfOrder,
)
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.blobs import Blobs
from cacheproxy.registry.tickets import Tickets
from cacheproxy.storage.bucket import Bucket, Listed
from cacheproxy.storage.layout import Namespace, last_component

_CHUNKED: Final = ".chunks"


class Uploads:
    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        contents: Contents,
        blobs: Blobs,
        tickets: Tickets,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._contents = contents
        self._blobs = blobs
        self._tickets = tickets

    def begin(self, repository: Repository) -> str:
        """A new session's name."""
        return self._tickets.issue(repository)

    @staticmethod
    def chunked(session: str) -> str:
        """The session's name from its first chunk on."""
        return _ticket(session) + _CHUNKED

    async def offset(self, repository: Repository, session: str) -> int:
        """How many bytes the session has. Raises BlobUploadUnknown."""
        return _end(await self._chunks(repository, session))

    async def append(
        self, repository: Repository, session: str, body: Body, chunk: ByteRange | None
    ) -> int:
        """Store a chunk, durably; returns how many bytes the session has then.

        Raises:
            BlobUploadUnknown: there is no such session.
            UploadOutOfOrder: the chunk does not begin where the session ends.
            SizeInvalid, StorageFull: nothing was stored.
        """
        end = _end(await self._chunks(repository, session))
        _expect(chunk, end, body)
        key = self._namespace.chunk(_ticket(session), end)
        async with self._contents.receive(key, body, Hasher()) as received:
            _check(chunk, received.size)
            if received.size:
                try:
                    await received.commit_part(absent=True)
                except Conflict:
                    raise UploadOutOfOrder(await self.offset(repository, session)) from None
        return end + received.size

    async def finish(
        self,
        repository: Repository,
        session: str,
        digest: Digest,
        body: Body,
        chunk: ByteRange | None,
        pusher: str = "",
    ) -> int:
        """Complete the session with the last bytes, if any; returns the blob's size in bytes.

        Raises:
            BlobUploadUnknown, UploadOutOfOrder, SizeInvalid, StorageFull: as `append`.
            DigestInvalid: the whole has another digest; the session stays as it is.
        """
        self._tickets.check(repository, _ticket(session))
        whole = body.length != 0 and chunk is None and not session.endswith(_CHUNKED)
        chunks = [] if whole else await self._chunks(repository, session)
        _expect(chunk, _end(chunks), body)
        if not chunks:
            return await self._blobs.push(repository, digest, body, pusher)
        hasher = await self._hash(chunks, digest.algorithm)
        last = self._namespace.last(_ticket(session), digest)
        async with self._contents.receive(last, body, hasher) as received:
            _check(chunk, received.size)
            if (found := hasher.digest()) != digest:
                raise DigestInvalid(f"the content is {found}, not {digest}")
            if received.size:
                await received.commit_part()
                chunks.append(Listed(last, received.size))
        join = partial(self._bucket.join, chunks, self._namespace.blob(digest), pusher)
        await self._blobs.show(repository, digest, hasher.size, pusher, join)
        await self._close(_ticket(session))
        return hasher.size

    async def cancel(self, repository: Repository, session: str) -> None:
        """Forget the session and its bytes. Raises BlobUploadUnknown."""
        await self._chunks(repository, session)
        await self._close(_ticket(session))

    async def sweep(self) -> int:
        """Remove what ended and expired sessions left; returns how many sessions those were."""
        swept = 0
        async for folder in self._bucket.list(self._namespace.uploads(), folders=True):
            session = last_component(folder.key)
            if self._tickets.expired(session):
                async for left in self._bucket.list(self._namespace.upload(session)):
                    await self._bucket.delete(left.key)
                swept += 1
        return swept

    async def _chunks(self, repository: Repository, session: str) -> list[Listed]:
        """The session's chunks without gap. Raises BlobUploadUnknown."""
        ticket = _ticket(session)
        self._tickets.check(repository, ticket)
        closed = self._namespace.closed(ticket)
        chunks: list[Listed] = []
        async for stored in self._bucket.list(self._namespace.upload(ticket)):
            if stored.key == closed:
                raise BlobUploadUnknown("this upload has ended")
            if last_component(stored.key).isdigit():
                chunks.append(stored)
        return chunks

    async def _hash(self, chunks: list[Listed], algorithm: str) -> Hasher:
        hasher = Hasher(algorithm)
        for chunk in chunks:
            if not await self._contents.read_into(chunk.key, hasher, chunk.size):
                raise BlobUploadUnknown("this upload has ended")
        return hasher

    async def _close(self, ticket: str) -> None:
        """Close first, so that a crash in between leaves no session with holes."""
        closed = self._namespace.closed(ticket)
        await self._bucket.put(closed, b"{}")
        async for left in self._bucket.list(self._namespace.upload(ticket)):
            if left.key != closed:
                await self._bucket.delete(left.key)


def _ticket(session: str) -> str:
    return session.removesuffix(_CHUNKED)


def _end(chunks: list[Listed]) -> int:
    """Where the chunks end: each is named by its offset."""
    return int(last_component(chunks[-1].key)) + chunks[-1].size if chunks else 0


def _expect(chunk: ByteRange | None, end: int, body: Body) -> None:
    """Check an announced range against where the session ends and how long the body is."""
    if chunk is None:
        return
    if chunk.start != end:
        raise UploadOutOfOrder(end)
    if body.length not in (None, chunk.length):
        raise SizeInvalid(f"Content-Range says {chunk.length} bytes, Content-Length {body.length}")


def _check(chunk: ByteRange | None, size: int) -> None:
    if chunk is not None and size != chunk.length:
        raise SizeInvalid(f"Content-Range says {chunk.length} bytes, {size} came")
