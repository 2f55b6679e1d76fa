"""fsck: whether blobs and manifests are what their digests say, and tags have all that they need.

First every blob is hashed, at the pace that the budget allows; then every manifest is; then every
tag is followed to its blobs. Whatever cannot be read does not end it, unless nothing can.

What was found damaged can be quarantined, all of it together at the end, as that takes its time:
see `quarantine.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from cacheproxy.collection.budget import Budget
from cacheproxy.collection.documents import Damage, Document, Documents, needed_by
from cacheproxy.collection.each import for_each
from cacheproxy.collection.marks import Marks
from cacheproxy.collection.quarantine import Quarantine
from cacheproxy.content.contents import Contents
from cacheproxy.errors import DigestInvalid, Unavailable
from cacheproxy.oci.digest import Digest, Hasher
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.batches import WRITTEN_SECONDS
from cacheproxy.registry.catalog import Catalog
from cacheproxy.registry.condemned import Sleep
from cacheproxy.registry.tags import Tags
from cacheproxy.storage.bucket import Bucket, Listed
from cacheproxy.storage.layout import FORMAT_KEY, Namespace, last_component

_BLOBS: Final = 4
_RECORDS: Final = 16
_BATCH: Final = 1000
_TOLD: Final = 3
_QUARANTINED: Final = 5_000  # in one run: every replica has them in memory


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with `what`."""

    what: str
    problem: str


@dataclass(slots=True)
class Checked:
    """How much was looked at, how much of it is wrong, and how much was moved away."""

    blobs: int = 0
    bytes: int = 0
    manifests: int = 0
    tags: int = 0
    wrong: int = 0
    quarantined: int = 0


class Watcher(Protocol):
    """Who is told, as it goes."""

    def planned(self, size: int) -> None:
        """So many bytes of blobs are there to be hashed."""

    def hashed(self, count: int) -> None:
        """So many more of them are."""

    def found(self, finding: Finding) -> None: ...

    def waiting(self, count: int, seconds: float) -> None:
        """So many are quarantined, unless they are pushed again in so many seconds from now."""

    def quarantined(self, what: str) -> None: ...


class Fsck:
    """One run over a namespace. Quarantines what is damaged only if it is to."""

    def __init__(
        self,
        bucket: Bucket,
        namespace: Namespace,
        contents: Contents,
        budget: Budget,
        watcher: Watcher,
        *,
        quarantine: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._namespace = namespace
        self._contents = contents
        self._budget = budget
        self._watcher = watcher
        self._quarantine = quarantine
        self._catalog = Catalog(bucket, namespace)
        self._tags = Tags(bucket, namespace)
        self._documents = Documents(bucket, namespace)
        self._checked = Checked()
        self._sound = Marks()
        self._damaged = Marks()
        self._waiting: list[Digest] = []
        self._moving: dict[str, str] = {}
        self._sleep = sleep

    async def run(self) -> Checked:
        """Once. Raises Unavailable: the bucket cannot be read, or written."""
        with self._sound, self._damaged:
            size = 0
            async for listed in self._bucket.list(self._namespace.blobs()):
                size += listed.size
            self._watcher.planned(size)
            blobs = self._bucket.list(self._namespace.blobs())
            await for_each(blobs, self._check_blob, _BLOBS)
            await self._mark_sound()
            async for name in self._catalog.list(remains=True):
                repository = Repository(name)
                manifests = self._bucket.list(self._namespace.manifests(repository))
                await for_each(manifests, partial(self._check_manifest, repository), _RECORDS)
                tags = self._tags.list(repository)
                await for_each(tags, partial(self._check_tag, repository), _RECORDS)
        if self._moving:
            await self._move()
        return self._checked

    async def _check_blob(self, listed: Listed) -> None:
        digest = _digest(listed.key, self._namespace.blobs())
        if digest is None or self._namespace.blob(digest) != listed.key:
            self._tell(f"object {listed.key}", "it is where blobs are, and is none")
            return
        self._checked.blobs += 1
        try:
            found = await self._hash(listed.key, digest, self._took)
        except Unavailable as error:
            await self._damaged.add((digest,))
            await self._tell_unreadable(f"blob {digest}", error)
            return
        if found == digest:
            await self._mark_sound(digest)
        elif found is not None:
            await self._damaged.add((digest,))
            self._tell_damaged(listed.key, f"blob {digest}", f"its content is {found}")

    async def _mark_sound(self, *digests: Digest) -> None:
        """Many at a time; those that are left if there are none."""
        self._waiting += digests
        if len(self._waiting) >= _BATCH or not digests:
            waiting, self._waiting = self._waiting, []
            await self._sound.add(waiting)

    async def _hash(
        self, key: str, digest: Digest, took: Callable[[int], Awaitable[None]]
    ) -> Digest | None:
        """None: it was deleted since it was listed."""
        hasher = Hasher(digest.algorithm)
        found = await self._contents.read_into(key, hasher, took=took)
        return hasher.digest() if found else None

    async def _took(self, count: int) -> None:
        self._checked.bytes += count
        self._watcher.hashed(count)
        await self._budget.take(count)

    async def _check_manifest(self, repository: Repository, listed: Listed) -> None:
        digest = _digest(listed.key, self._namespace.manifests(repository))
        if digest is None or self._namespace.manifest(repository, digest) != listed.key:
            self._tell(f"object {listed.key}", "it is where manifests are, and is none")
            return
        self._checked.manifests += 1
        what = f"manifest {repository}@{digest}"
        try:
            found = await self._documents.get(repository, digest)
        except Unavailable as error:
            await self._tell_unreadable(what, error)
            return
        if isinstance(found, Damage):
            self._tell_damaged(listed.key, what, found.reason)

    async def _check_tag(self, repository: Repository, name: str) -> None:
        self._checked.tags += 1
        what = f"tag {repository}:{name}"
        try:
            record = await self._tags.read(repository, Tag(name))
            roots = [] if record is None else needed_by(record)
            gone = [each for each in roots if not await self._follow(what, repository, each)]
        except Unavailable as error:
            await self._tell_unreadable(what, error)
            return
        if gone and len(gone) == len(roots):
            self._tell(what, f"it leads nowhere: missing or damaged: {_some('manifest', gone)}")
        elif gone:
            self._tell(what, f"missing or damaged among its sources: {_some('manifest', gone)}")

    async def _follow(self, what: str, repository: Repository, root: Digest) -> bool:
        """Look for all that a tag needs by way of a manifest; False if that is not there.

        Indexes may have children that are not: clients push them so.
        """
        ahead, seen = [root], {root}
        while ahead:
            digest = ahead.pop()
            found = await self._documents.get(repository, digest)
            if isinstance(found, Document):
                await self._look(what, digest, found)
                new = [child for child in found.manifests if child not in seen]
                seen.update(new)
                ahead += new
            elif digest == root:
                return False
        return True

    async def _look(self, what: str, digest: Digest, found: Document) -> None:
        unsure = sorted(found.blobs.keys() - await self._sound.has(found.blobs.keys()))
        missing = [blob for blob in unsure if not await self._exists(blob)]
        damaged = await self._damaged.has(unsure) - set(missing)
        for problem, blobs in (("missing", missing), ("damaged", damaged)):
            if blobs:
                self._tell(what, f"{problem} for manifest {digest}: {_some('blob', blobs)}")

    async def _exists(self, blob: Digest) -> bool:
        return await self._bucket.head(self._namespace.blob(blob)) is not None

    async def _move(self) -> None:
        self._watcher.waiting(len(self._moving), WRITTEN_SECONDS)
        quarantine = Quarantine(self._bucket, self._namespace, self._is_damaged, self._sleep)
        for key in await quarantine.take(list(self._moving)):
            self._checked.quarantined += 1
            self._watcher.quarantined(self._moving[key])

    async def _is_damaged(self, key: str) -> bool:
        """Raises Unavailable: it is not only this that cannot be read."""
        try:
            if (digest := self._namespace.blob_at(key)) is not None:
                return await self._hash(key, digest, self._budget.take) not in (None, digest)
            if (digest := self._namespace.manifest_at(key)) is not None:
                documents = Documents(self._bucket, self._namespace)  # which remember nothing
                found = await documents.get(self._namespace.repository_at(key), digest)
                return isinstance(found, Damage)
        except Unavailable:
            await self._bucket.head(FORMAT_KEY)
        return False

    def _tell_damaged(self, key: str, what: str, problem: str) -> None:
        self._tell(what, problem)
        if self._quarantine and len(self._moving) < _QUARANTINED:
            self._moving[key] = what

    async def _tell_unreadable(self, what: str, error: Unavailable) -> None:
        """Raises Unavailable: it is not only this that cannot be read."""
        await self._bucket.head(FORMAT_KEY)
        self._tell(what, f"it cannot be read: {error.detail}")

    def _tell(self, what: str, problem: str) -> None:
        self._checked.wrong += 1
        self._watcher.found(Finding(what, problem))


def _digest(key: str, prefix: str) -> Digest | None:
    """What is at a key of a blob or manifest, if it is one."""
    algorithm, _, rest = key.removeprefix(prefix).partition("/")
    with suppress(DigestInvalid):
        return Digest.parse(f"{algorithm}:{last_component(rest)}")
    return None


def _some(noun: str, digests: Collection[str]) -> str:
    """Such as `5 blobs, sha256:..., sha256:..., sha256:... among them`."""
    told = ", ".join(sorted(digests)[:_TOLD])
    if len(digests) == 1:
        return f"{noun} {told}"
    return f"{len(digests)} {noun}s, {told}" + (" among them" if len(digests) > _TOLD else "")
