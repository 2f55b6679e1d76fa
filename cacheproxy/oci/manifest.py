"""Manifests: what the registry reads in the bytes it stores (image-spec, manifest.md).

The bytes are what counts; they are stored and served as they came. What is read here serves the
referrers API, garbage collection and a clear answer to nonsense.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from cacheproxy.errors import ManifestInvalid

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"

MEDIA_TYPES: Final = frozenset(
    {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, OCI_ARTIFACT}
)
_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})

DigestText = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+\Z", max_length=1024)
]


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A pointer to content: image-spec, descriptor.md. `size` is in bytes."""

    media_type: str
    digest: DigestText
    size: Annotated[int, msgspec.Meta(ge=0)]
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class _Body(msgspec.Struct, frozen=True, rename="camel"):
    """Every field that any known manifest has; Go writes absent lists and maps as null."""

    schema_version: int | None = None
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None
    signatures: Any = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says.

    `references` are the descriptors of its children in the order of the document. The children of
    an index may be manifests or blobs: BuildKit's older caches are indexes of layer blobs.
    """

    media_type: str
    references: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: dict[str, str] | None


_decoder: Final = msgspec.json.Decoder(_Body)


def parse_manifest(data: bytes, content_type: str | None) -> Manifest:
    """Read a manifest that was sent with `content_type`, or without one.

    Raises:
        ManifestInvalid: it is no JSON, lacks what its type requires, or contradicts itself.
    """
    try:
        body = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(f"not a manifest: {error}") from error
    media_type = _media_type(body, content_type)
    _check(body, media_type)
    children = (*(body.layers or ()), *(body.blobs or ()), *(body.manifests or ()))
    return Manifest(
        media_type=media_type,
        references=((body.config,) if body.config else ()) + children,
        subject=body.subject,
        artifact_type=body.artifact_type or (body.config.media_type if body.config else None),
        annotations=body.annotations,
    )


def _media_type(body: _Body, content_type: str | None) -> str:
    declared = content_type.partition(";")[0].strip() if content_type else None
    media_type = declared or body.media_type
    if media_type is None:
        raise ManifestInvalid("neither Content-Type nor mediaType says what this is")
    if body.media_type not in (None, media_type):
        raise ManifestInvalid(f"Content-Type is {media_type!r} but mediaType {body.media_type!r}")
    if media_type not in MEDIA_TYPES:
        raise ManifestInvalid(f"media type {media_type!r:.200} is not a known manifest type")
    return media_type


def _check(body: _Body, media_type: str) -> None:
    if body.signatures is not None or body.schema_version == 1:
        raise ManifestInvalid("manifests of schema 1 are not supported")
    if media_type == OCI_ARTIFACT:
        return
    if body.schema_version != 2:
        raise ManifestInvalid("schemaVersion must be 2")
    if media_type in _INDEXES:
        if body.config or body.layers:  # image-spec: parsers disagree on what such a thing is
            raise ManifestInvalid("an index has neither config nor layers")
        if body.manifests is None:
            raise ManifestInvalid("an index has manifests")
    else:
        if body.manifests:
            raise ManifestInvalid("an image manifest has no manifests")
        if body.config is None:
            raise ManifestInvalid("an image manifest has a config")
