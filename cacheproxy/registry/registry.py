"""The rules of a registry over one bucket, put together."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cacheproxy.content.contents import Contents
from cacheproxy.registry.blobs import Blobs
from cacheproxy.registry.caches import Caches
from cacheproxy.registry.catalog import Catalog
from cacheproxy.registry.condemned import Condemned, Sleep
from cacheproxy.registry.existence import Existence
from cacheproxy.registry.hidden import Hidden
from cacheproxy.registry.manifest_store import ManifestStore
from cacheproxy.registry.manifests import Manifests
from cacheproxy.registry.referrers import Referrers
from cacheproxy.registry.sources import MayPush, Window, Windows, anybody_may_push
from cacheproxy.registry.tags import Tags
from cacheproxy.registry.tickets import Tickets
from cacheproxy.registry.union import Limits
from cacheproxy.registry.unions import Unions
from cacheproxy.registry.uploads import Uploads
from cacheproxy.registry.uses import Uses
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.deadline import CLOCKS, Clocks
from cacheproxy.storage.layout import Namespace


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How cache tags are served; see the settings of `cache`."""

    windows: Windows = field(default_factory=lambda: Windows(Window(32, 7 * 86400 * 10**9)))
    limits: Limits = field(default_factory=lambda: Limits(1 << 20, 1 << 20))
    verify_seconds: float = 60.0


class Registry:
    """The nouns of the API for one namespace. `clock` gives nanoseconds since 1970, `clocks` are
    those by which what is known gets old, the first one by which it is forgotten. `condemned` is
    given by who is not to rescue anything."""

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        contents: Contents,
        tickets: Tickets,
        rules: CacheRules = CacheRules(),
        clock: Callable[[], int] = time.time_ns,
        clocks: Clocks = CLOCKS,
        sleep: Sleep = asyncio.sleep,
        may_push: MayPush = anybody_may_push,
        condemned: Condemned | None = None,
    ) -> None:
        self.namespace = namespace
        self.condemned = condemned or Condemned(bucket, namespace, clocks, sleep)
        self.hidden = Hidden(bucket, namespace)
        self.tags = Tags(bucket, namespace, clock)
        self.referrers = Referrers(bucket, namespace)
        self.catalog = Catalog(bucket, namespace)
        existence = Existence(bucket, namespace, self.condemned, clocks[0])
        self.blobs = Blobs(namespace, contents, existence, self.hidden, self.condemned)
        self.uploads = Uploads(bucket, namespace, contents, self.blobs, tickets)
        self.store = ManifestStore(bucket, namespace, self.condemned, clocks[0])
        self.unions = Unions(self.store, self.blobs, rules.limits, rules.verify_seconds)
        self.uses = Uses(self.tags, clock)
        self.caches = Caches(
            self.tags,
            self.uses,
            self.unions,
            rules.windows,
            rules.verify_seconds,
            clock,
            clocks[0],
            may_push,
        )
        self.manifests = Manifests(
            self.store, self.tags, self.uses, self.caches, self.referrers, self.hidden, clocks
        )
