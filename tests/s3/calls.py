"""What a request to S3 is: its operation, and the kind of key that it is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

Kind = Literal[
    "blob",
    "manifest",
    "tag",
    "referrer",
    "repository",
    "deleted",
    "gc",
    "upload",
    "format",
    "secret",
    "lock",
    "probe",
    "other",
]

_PATTERNS: Final[Mapping[Kind, str]] = {
    # Repositories first: their names and tags may look like anything below.
    "manifest": r"repositories/.+/_manifests/",
    "tag": r"repositories/.+/_tags/",
    "referrer": r"repositories/.+/_referrers/",
    "repository": r"repositories/",
    "blob": r"blobs/",
    "deleted": r"deleted/",
    "gc": r"gc/",
    "upload": r"uploads/",
    "format": r"format$",
    "secret": r"secret$",
    "lock": r"locks?(?:/|$)",
    "probe": r"probes?(?:/|-|$)",
}
_KINDS: Final = {kind: re.compile(rf"(?:^|/){pattern}") for kind, pattern in _PATTERNS.items()}

_OBJECT: Final = {
    ("GET", ""): "GetObject",
    ("HEAD", ""): "HeadObject",
    ("PUT", ""): "PutObject",
    ("PUT", "copy"): "CopyObject",
    ("DELETE", ""): "DeleteObject",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("PUT", "uploadId"): "UploadPart",
    ("PUT", "uploadId copy"): "UploadPartCopy",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "uploadId"): "ListParts",
    ("GET", "tagging"): "GetObjectTagging",
    ("PUT", "tagging"): "PutObjectTagging",
}
_BUCKET: Final = {
    ("GET", ""): "ListObjects",
    ("GET", "list-type"): "ListObjectsV2",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "location"): "GetBucketLocation",
    ("HEAD", ""): "HeadBucket",
    ("PUT", ""): "CreateBucket",
    ("DELETE", ""): "DeleteBucket",
    ("POST", "delete"): "DeleteObjects",
}
_MARKERS: Final = ("list-type", "uploads", "uploadId", "location", "delete", "tagging")


@dataclass(slots=True)
class Call:
    """A request, as it came, and what has become of it."""

    method: str
    target: str
    """Path and query, byte for byte."""
    headers: Mapping[str, str]
    """Their names match in any case."""
    operation: str
    kind: Kind
    key: str
    """Without the bucket; of a listing, its prefix."""
    status: int | None = None
    """None as long as no answer has begun."""
    sent: int = 0
    """How many bytes of the request's body went to S3."""
    received: int = 0
    """How many bytes of the answer's body went to the client."""
    over: bool = False


def parse(method: str, target: str, headers: Mapping[str, str]) -> Call:
    """Classify a request whose path begins with the bucket (path style)."""
    path, _, query = target.partition("?")
    key = unquote(path).lstrip("/").partition("/")[2]
    values = dict(parse_qsl(query, keep_blank_values=True))
    what = " ".join(marker for marker in _MARKERS if marker in values)
    if "x-amz-copy-source" in headers:
        what = f"{what} copy".lstrip()
    names = _OBJECT if key else _BUCKET
    operation = names.get((method, what), f"{method} {what}".rstrip())
    about = key or values.get("prefix", "")
    return Call(method, target, headers, operation, kind_of(about), about)


def kind_of(key: str) -> Kind:
    """The kind of a key of `cacheproxy.storage.layout`, below any prefix of the bucket."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(key)), "other")
