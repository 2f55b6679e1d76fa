"""What an S3 bucket is, and how it is to be used."""

from dataclasses import dataclass
from typing import Any, Literal

from cacheproxy.storage.s3.parts import MIB


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the S3 of a bucket can do; see `probe`."""

    conditional_writes: bool = True
    ranges: bool = True
    flat: bool = True
    """Whether it lists in the order of code points; else it is a tree of folders inside."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where the bucket is, what its objects are to be, and how long to wait for it."""

    bucket: str
    prefix: str = ""
    """Before every key: empty, or ending in `/`."""
    endpoint_url: str | None = None
    region: str | None = None
    path_style: bool = False
    ca_file: str | None = None
    sse: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    storage_class: str | None = None
    checksums: Literal["auto", "required", "off"] = "auto"
    """`auto` sends those that are known anyway: all but those of the parts of large objects."""
    part_bytes: int = 16 * MIB
    copy_bytes: int = 5 << 30
    """The most that one copy inside the bucket may take."""
    public_endpoint_url: str | None = None
    """Where clients reach the bucket, for redirects."""
    read_seconds: float = 1.5
    """A read that was not answered in this time has failed, retries and all."""
    write_seconds: float = 30.0
    """The same for a write; a large one gets the time that its bytes need besides."""
    stall_seconds: float = 30.0
    """How long nothing may come in the middle of an object."""

    def object_params(self) -> dict[str, Any]:
        """What an object is created with, as botocore names it."""
        params = {
            "ServerSideEncryption": self.sse,
            "SSEKMSKeyId": self.kms_key_id,
            "StorageClass": self.storage_class,
        }
        return {name: value for name, value in params.items() if value is not None}
