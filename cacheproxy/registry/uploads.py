"""Upload sessions (distribution-spec, "Pushing blobs").

Beginning one stores nothing: the session's name is a signed ticket that any server with the same
secret can check. What follows decides what it costs:

- POST, PUT (all of BuildKit): the body goes through one spool into its place. The session leaves
  no trace, and a PUT that is repeated because its answer was lost works again.
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

import base64
import hmac
import secrets
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cacheproxy.content.spool import Body, Spool, SpoolFolder
from cacheproxy.errors import (
    BlobUploadUnknown,
    Conflict,
    DigestInvalid,
    SizeInvalid,
    Unavailable,
    UploadOutOfOrder,
)
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.blobs import Blobs
from cacheproxy.storage.blocking import in_thread, os_errors
from cacheproxy.storage.bucket import ABSENT, Bucket, LocalFile
from cacheproxy.storage.layout import SECRET_KEY, Namespace, last_component

_NONCE: Final = struct.Struct(">I12s")  # when the session began, in seconds, and chance
_SIGNATURE_BYTES: Final = 14
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Chunk:
    key: str
    start: int
    size: int


class Tickets:
    """Names of sessions, signed: `<when><chance><signature>` in URL-safe letters."""

    def __init__(self, secret: bytes, lifetime: float, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._clock = clock

    def issue(self, repository: Repository) -> str:
        nonce = _NONCE.pack(int(self._clock()), secrets.token_bytes(12))
        return base64.urlsafe_b64encode(nonce + self._sign(repository, nonce)).decode()

    def check(self, repository: Repository, ticket: str) -> None:
        """Raises BlobUploadUnknown if it was not issued here, for this repository, lately."""
        raw = _decode(ticket)
        nonce = raw[: _NONCE.size]
        signed = hmac.compare_digest(raw[_NONCE.size :], self._sign(repository, nonce))
        if not signed or self.expired(ticket):
            raise BlobUploadUnknown("this upload was never begun, has ended, or is too old")

    def expired(self, ticket: str) -> bool:
        """Whether a name, of a session or of rubbish, is too old to be one."""
        raw = _decode(ticket)
        if len(raw) < _NONCE.size:
            return True
        began: int = _NONCE.unpack_from(raw)[0]
        return self._clock() - began > self._lifetime

    def _sign(self, repository: Repository, nonce: bytes) -> bytes:
        message = nonce + repository.encode()
        return hmac.digest(self._secret, message, "sha256")[:_SIGNATURE_BYTES]


def _decode(ticket: str) -> bytes:
    """The bytes of a ticket, none if it is not in the one form that `issue` gives."""
    try:
        raw = base64.urlsafe_b64decode(ticket)
    except ValueError:
        return b""
    return raw if base64.urlsafe_b64encode(raw).decode() == ticket else b""


async def load_secret(bucket: Bucket) -> bytes:
    """The bucket's secret, made by whoever comes first."""
    with suppress(Conflict):
        await bucket.put(SECRET_KEY, secrets.token_bytes(32), match=ABSENT)
    stored = await bucket.read(SECRET_KEY)
    if stored is None:
        raise Unavailable("the bucket has lost its secret")
    return stored.data


class Uploads:
    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        spools: SpoolFolder,
        blobs: Blobs,
        tickets: Tickets,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._spools = spools
        self._blobs = blobs
        self._tickets = tickets

    def begin(self, repository: Repository) -> str:
        """A new session's name."""
        return self._tickets.issue(repository)

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
        if chunk is not None:
            _expect(chunk, end, body)
        async with self._spools.new() as spool:
            await _fill(spool, body, chunk)
            if spool.size:
                try:
                    await spool.commit(self._namespace.chunk(session, end), absent=True)
                except Conflict:
                    raise UploadOutOfOrder(await self.offset(repository, session)) from None
        return end + spool.size

    async def finish(
        self,
        repository: Repository,
        session: str,
        digest: Digest,
        body: Body,
        chunk: ByteRange | None,
    ) -> int:
        """Complete the session with the last bytes, if any; returns the blob's size in bytes.

        Raises:
            BlobUploadUnknown, UploadOutOfOrder, SizeInvalid, StorageFull: as `append`.
            DigestInvalid: the whole has another digest; the session stays as it is.
        """
        chunks = await self._chunks(repository, session)
        if not chunks:
            if chunk is not None:
                _expect(chunk, 0, body)
            return await self._blobs.push(repository, digest, body)
        if chunk is not None:
            _expect(chunk, _end(chunks), body)
        parts = [each.key for each in chunks]
        hasher = await self._hash(chunks, digest.algorithm)
        async with self._spools.new(after=hasher) as spool:
            await _fill(spool, body, chunk)
            if (found := hasher.digest()) != digest:
                raise DigestInvalid(f"the content is {found}, not {digest}")
            if spool.size:
                parts.append(self._namespace.last(session, digest))
                await spool.commit(parts[-1])
        await self._bucket.join(parts, self._namespace.blob(digest))
        await self._blobs.mount(repository, digest, None)
        await self._close(session)
        return hasher.size

    async def cancel(self, repository: Repository, session: str) -> None:
        """Forget the session and its bytes. Raises BlobUploadUnknown."""
        await self._chunks(repository, session)
        await self._close(session)

    async def sweep(self) -> int:
        """Remove what ended and expired sessions left; returns how many sessions those were."""
        swept = 0
        async for folder in self._bucket.list(self._namespace.uploads(), folders=True):
            session = last_component(folder)
            if self._tickets.expired(session):
                async for key in self._bucket.list(self._namespace.upload(session)):
                    await self._bucket.delete(key)
                swept += 1
        return swept

    async def _chunks(self, repository: Repository, session: str) -> list[_Chunk]:
        """The session's chunks without gap. Raises BlobUploadUnknown."""
        self._tickets.check(repository, session)
        closed = self._namespace.closed(session)
        chunks: list[_Chunk] = []
        async for key in self._bucket.list(self._namespace.upload(session)):
            if key == closed:
                raise BlobUploadUnknown("this upload has ended")
            start = last_component(key)
            size = await self._bucket.head(key)
            if size is not None and start.isdigit():
                chunks.append(_Chunk(key, int(start), size))
        return chunks

    async def _hash(self, chunks: list[_Chunk], algorithm: str) -> Hasher:
        hasher = Hasher(algorithm)
        for chunk in chunks:
            file = await self._bucket.open(chunk.key)
            if file is None:
                raise BlobUploadUnknown("this upload has ended")
            with file:
                await in_thread(_hash, file, hasher)
        return hasher

    async def _close(self, session: str) -> None:
        """Close first, so that a crash in between leaves no session with holes."""
        closed = self._namespace.closed(session)
        await self._bucket.put(closed, b"{}")
        async for key in self._bucket.list(self._namespace.upload(session)):
            if key != closed:
                await self._bucket.delete(key)


def _end(chunks: list[_Chunk]) -> int:
    return chunks[-1].start + chunks[-1].size if chunks else 0


async def _fill(spool: Spool, body: Body, chunk: ByteRange | None) -> None:
    await spool.fill(body)
    if chunk is not None and spool.size != chunk.length:
        raise SizeInvalid(f"Content-Range says {chunk.length} bytes, {spool.size} came")


def _expect(chunk: ByteRange, end: int, body: Body) -> None:
    """Check an announced range against where the session ends and how long the body is."""
    if chunk.start != end:
        raise UploadOutOfOrder(end)
    if body.length not in (None, chunk.length):
        raise SizeInvalid(f"Content-Range says {chunk.length} bytes, Content-Length {body.length}")


def _hash(file: LocalFile, hasher: Hasher) -> None:
    offset = 0
    with os_errors:
        while data := file.read_at(offset, _READ_BYTES):
            hasher.update(data)
            offset += len(data)
