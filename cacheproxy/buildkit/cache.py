"""A build cache as BuildKit exports it: records of steps, and the layers that they resulted in.

A record stands for one output of one step. It has the step's digest and, for each input of the
step, the alternatives that this input may be: records, each with a selector (a path inside its
result, or ""). A result is a chain of layers, root first.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import msgspec

CACHE_CONFIG: Final = "application/vnd.buildkit.cacheconfig.v0"

DIFF_ID: Final = "containerd.io/uncompressed"
"""The annotation with the digest of a layer's tar, without which BuildKit cannot use the layer."""

Form = Literal["image", "index"]
"""How the manifest of a cache looks: since v0.21 an image manifest, earlier an index of blobs."""


# There are hundreds of thousands of these, none of them in a cycle: the collector of garbage would
# spend more time on them than all the rest takes.
class Layer(msgspec.Struct, frozen=True, order=True, gc=False):
    """A layer on top of another one, whose place in the cache's layers is `parent`, or on none."""

    blob: str
    parent: int  # -1: none


class Result(msgspec.Struct, frozen=True, order=True, gc=False):
    """What a step made: the chain of layers that ends in the cache's layer `layer`."""

    layer: int
    created_at: int  # nanoseconds since 1970, when the step was executed


class Alternative(msgspec.Struct, frozen=True, order=True, gc=False):
    """What an input may be: a record, by its place in the cache, or `selector` in its result."""

    selector: str
    record: int


class Record(msgspec.Struct, frozen=True, order=True, gc=False):
    """One output of one step."""

    digest: str
    inputs: tuple[tuple[Alternative, ...], ...] = ()
    results: tuple[Result, ...] = ()


class LayerDescriptor(NamedTuple):
    """What the manifest says about a layer, apart from its digest.

    `media_type` is the OCI one, whichever was written. `annotations` are sorted pairs.
    """

    media_type: str
    size: int
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def diff_id(self) -> str | None:
        return next((value for key, value in self.annotations if key == DIFF_ID), None)


class Config(NamedTuple):
    """What a cacheconfig blob says.

    Both are in an order in which parents are before their children, and sources of inputs before
    the records that they are inputs of.
    """

    layers: tuple[Layer, ...]
    records: tuple[Record, ...]


class Cache(msgspec.Struct, frozen=True):
    """A cache: its config, and the descriptors of its layers by digest."""

    config: Config
    descriptors: Mapping[str, LayerDescriptor]
    form: Form = "image"


class Opaque(msgspec.Struct, frozen=True):
    """A cache that is passed on as it came and never taken apart, and why."""

    reason: str
