"""The rules of a registry over one bucket, put together."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cacheproxy.content.contents import Contents
from cacheproxy.registry.blobs import Blobs
from cacheproxy.registry.caches import Caches
from cacheproxy.registry.catalog import Catalog
from cacheproxy.registry.existence import Existence
from cacheproxy.registry.hidden import Hidden
from cacheproxy.registry.manifest_store import ManifestStore
from cacheproxy.registry.manifests import Manifests
from cacheproxy.registry.referrers import Referrers
from cacheproxy.registry.sources import Window, Windows
from cacheproxy.registry.tags import Tags
from cacheproxy.registry.union import Limits
from cacheproxy.registry.unions import Unions
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How cache tags are served; see the settings of `cache`."""

    windows: Windows = field(default_factory=lambda: Windows(Window(32, 7 * 86400 * 10**9)))
    limits: Limits = field(default_factory=lambda: Limits(1 << 20, 1 << 20))
    verify_seconds: float = 60.0


class Registry:
    """The nouns of the API for one namespace. `clock` gives nanoseconds since 1970."""

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        contents: Contents,
        rules: CacheRules = CacheRules(),
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.hidden = Hidden(bucket, namespace)
        self.tags = Tags(bucket, namespace)
        self.referrers = Referrers(bucket, namespace)
        self.catalog = Catalog(bucket, namespace)
        self.blobs = Blobs(namespace, contents, Existence(bucket, namespace), self.hidden)
        self.store = ManifestStore(bucket, namespace)
        self.unions = Unions(self.store, self.blobs, rules.limits, rules.verify_seconds)
        self.caches = Caches(self.tags, self.unions, rules.windows, rules.verify_seconds, clock)
        self.manifests = Manifests(self.store, self.tags, self.caches, self.referrers, self.hidden)
