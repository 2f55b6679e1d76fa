"""The registries of all namespaces, which share nothing, behind one API."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache

from cacheproxy.oci.reference import Repository
from cacheproxy.registry.registry import Registry
from cacheproxy.storage.layout import Namespace
from cacheproxy.storage.namespaces import Namespaces


class Registries:
    """One for each namespace, as `make` makes it."""

    def __init__(self, namespaces: Namespaces, make: Callable[[Namespace], Registry]) -> None:
        self._namespaces = namespaces
        self._registries = {namespace: make(namespace) for namespace in namespaces}
        self.of = lru_cache(10_000)(self._of)

    def __iter__(self) -> Iterator[Registry]:
        return iter(self._registries.values())

    def _of(self, repository: Repository) -> Registry:
        """The one that the repository is in."""
        return self._registries[self._namespaces.of(repository)]

    async def catalog(self, after: str = "") -> AsyncIterator[Repository]:
        """The repositories behind `after` that hold manifests, in the order of their names."""
        lists = [self._listed(registry, after) for registry in self]
        names = await asyncio.gather(*[anext(each, None) for each in lists])
        first = [(name, at) for at, name in enumerate(names) if name is not None]
        heapq.heapify(first)
        while first:
            name, at = first[0]
            yield name
            if (following := await anext(lists[at], None)) is None:
                heapq.heappop(first)
            else:
                heapq.heapreplace(first, (following, at))

    async def _listed(self, registry: Registry, after: str) -> AsyncIterator[Repository]:
        """Those of one, without what is left there from when other repositories were in it."""
        async for name in registry.catalog.list(after):
            if self.of(repository := Repository(name)) is registry:
                yield repository
