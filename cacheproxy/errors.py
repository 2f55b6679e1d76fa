"""What can go wrong, in the words of the distribution spec.

A room raises one of these; `api/errors.py` alone turns them into HTTP. Anything else that
escapes a room is a bug and becomes an internal error without details.
"""

from enum import Enum
from typing import ClassVar


class ErrorCode(Enum):
    """The spec's error codes with the spec's sentence, and four of our own at the end."""

    BLOB_UNKNOWN = "blob unknown to registry"
    BLOB_UPLOAD_INVALID = "blob upload invalid"
    BLOB_UPLOAD_UNKNOWN = "blob upload unknown to registry"
    DIGEST_INVALID = "provided digest did not match uploaded content"
    MANIFEST_BLOB_UNKNOWN = "manifest references a manifest or blob unknown to registry"
    MANIFEST_INVALID = "manifest invalid"
    MANIFEST_UNKNOWN = "manifest unknown to registry"
    NAME_INVALID = "invalid repository name"
    NAME_UNKNOWN = "repository name not known to registry"
    SIZE_INVALID = "provided length did not match content length"
    UNAUTHORIZED = "authentication required"
    DENIED = "requested access to the resource is denied"
    UNSUPPORTED = "the operation is unsupported"

    REQUEST_INVALID = "the request could not be understood"
    ENDPOINT_UNKNOWN = "no such endpoint"
    UNAVAILABLE = "the registry cannot do this now"
    UNKNOWN = "unknown error"


class RegistryError(Exception):
    """A request that cannot be granted; `detail` is shown to the client."""

    code: ClassVar[ErrorCode]

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.code.value)
        self.detail = detail


class BlobUnknown(RegistryError):
    code = ErrorCode.BLOB_UNKNOWN


class BlobUploadInvalid(RegistryError):
    code = ErrorCode.BLOB_UPLOAD_INVALID


class BlobUploadUnknown(RegistryError):
    code = ErrorCode.BLOB_UPLOAD_UNKNOWN


class UploadOutOfOrder(RegistryError):
    """A chunk does not begin where the upload ends, at byte `offset`."""

    code = ErrorCode.BLOB_UPLOAD_INVALID

    def __init__(self, offset: int) -> None:
        super().__init__(f"the next byte of this upload is byte {offset}")
        self.offset = offset


class BlobTooLarge(RegistryError):
    code = ErrorCode.SIZE_INVALID


class RangeNotSatisfiable(RegistryError):
    """No byte of a blob of `size` bytes lies in the range asked for."""

    code = ErrorCode.SIZE_INVALID

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside of the {size} bytes of the blob")
        self.size = size


class DigestInvalid(RegistryError):
    code = ErrorCode.DIGEST_INVALID


class ManifestBlobUnknown(RegistryError):
    """What a manifest refers to was there, and is being deleted."""

    code = ErrorCode.MANIFEST_BLOB_UNKNOWN


class ManifestInvalid(RegistryError):
    code = ErrorCode.MANIFEST_INVALID


class ManifestTooLarge(RegistryError):
    code = ErrorCode.MANIFEST_INVALID


class ManifestUnknown(RegistryError):
    code = ErrorCode.MANIFEST_UNKNOWN


class NameInvalid(RegistryError):
    code = ErrorCode.NAME_INVALID


class NameUnknown(RegistryError):
    code = ErrorCode.NAME_UNKNOWN


class SizeInvalid(RegistryError):
    code = ErrorCode.SIZE_INVALID


class Unauthorized(RegistryError):
    """Other credentials may help; `problem` is RFC 6750's word for what is wrong with these."""

    code = ErrorCode.UNAUTHORIZED

    def __init__(self, detail: str = "", problem: str = "") -> None:
        super().__init__(detail)
        self.problem = problem


class Denied(RegistryError):
    code = ErrorCode.DENIED


class Unsupported(RegistryError):
    code = ErrorCode.UNSUPPORTED


class MethodUnsupported(RegistryError):
    """The endpoint exists but takes only the methods in `allowed`."""

    code = ErrorCode.UNSUPPORTED

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"this endpoint takes {', '.join(allowed)}")
        self.allowed = allowed


class RequestInvalid(RegistryError):
    code = ErrorCode.REQUEST_INVALID


class RequestTimeout(RegistryError):
    """The client stopped sending in the middle of a request."""

    code = ErrorCode.REQUEST_INVALID


class EndpointUnknown(RegistryError):
    code = ErrorCode.ENDPOINT_UNKNOWN


class Unavailable(RegistryError):
    """Something the registry depends on is broken; the same request may succeed later."""

    code = ErrorCode.UNAVAILABLE


class StorageFull(RegistryError):
    """The storage has no room for what was sent; nothing of it was kept."""

    code = ErrorCode.UNAVAILABLE


class StorageInvalid(Exception):
    """The storage that was named cannot be this registry's. Ends the start, in one sentence."""


class Conflict(Exception):
    """A conditional write lost against another writer. Never reaches a client."""
