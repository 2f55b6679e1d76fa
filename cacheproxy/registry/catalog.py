"""The catalog: which repositories there are.

Names are listed in the order of their code points, though folders sort otherwise (`a-b` comes
before `a/b`, while the folder `a/` holds both `a` and `a/b`). A heap of names to look at puts that
right: a name is always before all that lies below it. One listing per name, none for sub-trees
that were listed on an earlier page.
"""

import heapq
from collections.abc import AsyncIterator, Sequence

from cacheproxy.oci.reference import Repository
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace, is_repository, last_component


class Catalog:
    def __init__(self, bucket: Bucket, namespace: Namespace) -> None:
        self._bucket = bucket
        self._namespace = namespace

    async def list(self, after: str = "", *, remains: bool = False) -> AsyncIterator[str]:
        """The names behind `after` of the repositories that hold manifests; or that have anything,
        be it only tags that lead nowhere, with `remains`."""
        waiting = _names("", await self._children(""))
        while waiting:
            name = heapq.heappop(waiting)
            if name + "/~" < after:  # `~` sorts behind all that a name can hold
                continue
            children = await self._children(name)
            if name > after and (is_repository(children) or (remains and _has_any(children))):
                yield name
            for below in _names(name, children):
                heapq.heappush(waiting, below)

    async def has(self, repository: Repository) -> bool:
        """Whether the repository holds manifests."""
        return is_repository(await self._children(repository))

    async def _children(self, name: str) -> Sequence[str]:
        prefix = self._namespace.repositories(name)
        return [child.key async for child in self._bucket.list(prefix, folders=True)]


def _has_any(children: Sequence[str]) -> bool:
    return any(last_component(child).startswith("_") for child in children)


def _names(parent: str, children: Sequence[str]) -> list[str]:
    """The names, sorted and thus a heap, of what may be repositories below `parent`."""
    return sorted(  # children end in slashes, which sort `a-b/` before `a/`
        f"{parent}/{component}" if parent else component
        for component in map(last_component, children)
        if not component.startswith("_")
    )
