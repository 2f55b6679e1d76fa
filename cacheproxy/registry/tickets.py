"""Tickets: the names of upload sessions, which any server with the same secret can check."""

import base64
import hmac
import secrets
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cacheproxy.errors import BlobUploadUnknown, Conflict, Unavailable
from cacheproxy.oci.reference import Repository
from cacheproxy.storage.bucket import ABSENT, Bucket
from cacheproxy.storage.layout import SECRET_KEY

_NONCE: Final = struct.Struct(">I12s")  # when the session began, in seconds, and chance
_SIGNATURE_BYTES: Final = 14
_SECRET_BYTES: Final = 32


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
        await bucket.put(SECRET_KEY, secrets.token_bytes(_SECRET_BYTES), match=ABSENT)
    stored = await bucket.read(SECRET_KEY)
    if stored is None or len(stored.data) != _SECRET_BYTES:
        raise Unavailable("the bucket has lost its secret")
    return stored.data
