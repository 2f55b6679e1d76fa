"""What clients were told, and what has to be there for it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from cacheproxy.buildkit.manifest import is_cache
from cacheproxy.collection.reach import led_to
from cacheproxy.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, Unavailable
from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.oci.manifest import (
    MEDIA_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    parse_manifest,
)
from cacheproxy.oci.reference import Reference, Repository, Tag
from cacheproxy.registry.batches import PAUSE_SECONDS, read_batch
from cacheproxy.registry.manifest_store import MEDIA_TYPE, StoredManifest
from cacheproxy.registry.tags import TagRecord, _record
from tests.collection.rooms import APP, LAYER, LEASE
from tests.collection.stage import Replica, Stage
from tests.memory import Object
from tests.registry.exports import Export, config_of
from tests.registry.rooms import Bytes

T = TypeVar("T")

_ERRORS = (BlobUnknown, ManifestBlobUnknown, ManifestUnknown, Unavailable)
"""What a client may be told instead of a promise."""


@dataclass(frozen=True)
class Document:
    """A manifest as a client pushes it."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        return digest_of(self.data)


def described(content: bytes, media_type: str = LAYER) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def index(*manifests: Document) -> Document:
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [described(each.data, each.media_type) for each in manifests],
    }
    return Document(json.dumps(body).encode(), OCI_INDEX)


def referrer(subject: Document, layer: bytes) -> Document:
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(layer),
        "layers": [described(layer)],
        "subject": described(subject.data, subject.media_type),
    }
    return Document(json.dumps(body).encode(), OCI_MANIFEST)


@dataclass
class Promises:
    """`kept` are keys, and until when; `owed` what has to be there for as long as a tag leads to a
    manifest. What clients are `deleting` is owed to nobody."""

    stage: Stage
    kept: dict[str, float] = field(default_factory=dict)
    owed: dict[tuple[Repository, Tag, Digest], set[str]] = field(default_factory=dict)
    deleting: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    referrers: dict[tuple[Repository, Digest], set[Digest]] = field(
        default_factory=lambda: defaultdict(set)
    )

    def promise(self, keys: Iterable[str], began: int) -> None:
        """By who began when so many were `deleted`."""
        until = self.stage.time.now + LEASE
        for key in self._left(keys, began):
            self.kept[key] = max(until, self.kept.get(key, 0.0))

    def owe(
        self, repository: Repository, tag: Tag, digest: Digest, keys: Iterable[str], began: int
    ) -> None:
        if digest in self.led_to(repository, tag):
            owed = self.owed.setdefault((repository, tag, digest), set())
            owed.update(self._left(keys, began))

    def _left(self, keys: Iterable[str], began: int) -> set[str]:
        """Without what is deleted meanwhile, or was, and is remembered for a minute."""
        there = self.stage.bucket.objects
        remembered = {key for key in self.deleted if key not in there}
        return set(keys) - {*self.deleting, *self.deleted[began:], *remembered}

    def forget(self, key: str) -> None:
        """A client deletes it, and what only that leads to is owed no longer."""
        self.deleted.append(key)
        self.kept.pop(key, None)
        for (repository, _, digest), keys in self.owed.items():
            keys &= self.whole(repository, digest)
            keys.discard(key)

    def check(self) -> None:
        there, now = self.stage.bucket.objects, self.stage.time.now
        lost = [key for key, until in self.kept.items() if until > now and key not in there]
        assert not lost, f"promised and gone: {lost}"
        for (repository, tag, digest), keys in list(self.owed.items()):
            if digest not in self.led_to(repository, tag):
                del self.owed[repository, tag, digest]
                continue
            lost = [key for key in keys if key not in there]
            assert not lost, f"{tag} leads to it and it is gone: {lost}"

    def led_to(self, repository: Repository, tag: Tag) -> list[Digest]:
        record = self.record(repository, tag)
        return [] if record is None else led_to(record)

    def record(self, repository: Repository, tag: Tag) -> TagRecord | None:
        found = self.stage.bucket.objects.get(self.stage.namespace.tag(repository, tag))
        return None if found is None else _record(found.data)

    def whole(
        self,
        repository: Repository,
        digest: Digest,
        referrers: dict[tuple[Repository, Digest], set[Digest]] | None = None,
    ) -> set[str]:
        """The keys of a manifest and of all that it leads to, where that is there; with those of
        its referrers that were acknowledged, or with `referrers`; nobody rescues those that are
        doomed when their subject is pushed."""
        referrers = self.referrers if referrers is None else referrers
        namespace = self.stage.namespace
        found, ahead = {namespace.manifest(repository, digest)}, [digest]
        while ahead:
            at = ahead.pop()
            key = namespace.manifest(repository, at)
            stored = None if key in self.deleting else self.stage.bucket.objects.get(key)
            for reference in _references(stored) if stored else ():
                child = Digest.parse(reference.digest)
                key = namespace.manifest(repository, child)
                if reference.media_type in MEDIA_TYPES and key not in found:
                    ahead.append(child)
                found |= {key, namespace.blob(child)}
            for each in referrers.get((repository, at), ()):
                if namespace.manifest(repository, each) in self.doomed:
                    continue
                found.add(namespace.referrer(repository, at, each))
                found.add(namespace.manifest(repository, each))
                ahead.append(each)
        return {key for key in found if key in self.stage.bucket.objects}

    @property
    def stored_referrers(self) -> dict[tuple[Repository, Digest], set[Digest]]:
        found: dict[tuple[Repository, Digest], set[Digest]] = defaultdict(set)
        for key in self.stage.bucket.objects:
            if key.startswith(self.stage.namespace.all_referrers(APP)):
                subject, referrer = (Digest(name.replace("-", ":")) for name in key.split("/")[-2:])
                found[APP, subject].add(referrer)
        return found

    @property
    def doomed(self) -> set[str]:
        objects = self.stage.bucket.objects
        batches = [
            read_batch(objects[key].data)
            for key in objects
            if key.startswith(self.stage.namespace.batches())
        ]
        return {key for batch in batches if batch.doomed for key in batch.keys}


def _references(stored: Object) -> tuple[Descriptor, ...]:
    return parse_manifest(stored.data, stored.metadata[MEDIA_TYPE]).references


class Client:
    """What clients ask a replica for. What they are told in time is a promise."""

    def __init__(self, promises: Promises, replica: Replica) -> None:
        self._promises = promises
        self._stage = promises.stage
        self._namespace = promises.stage.namespace
        self._registry = replica.registry
        self._began = 0

    async def _answer(self, request: Awaitable[T]) -> T | None:
        """What the client is told, perhaps after a pause; None: an error, or too late."""
        self._began = len(self._promises.deleted)
        try:
            answer = await request
        except _ERRORS:
            return None
        ended = self._stage.time.now
        await self._stage.pause("answer")
        return answer if self._stage.time.now - ended < PAUSE_SECONDS else None

    async def head(self, content: bytes) -> bool:
        digest = digest_of(content)
        found = await self._answer(self._registry.blobs.size(APP, digest)) is not None
        if found:
            self._promises.promise([self._namespace.blob(digest)], self._began)
        return found

    async def push(self, content: bytes) -> bool:
        digest = digest_of(content)
        request = self._registry.blobs.push(APP, digest, Bytes(content))
        done = await self._answer(request) is not None
        if done:
            self._promises.promise([self._namespace.blob(digest)], self._began)
        return done

    async def offer(self, content: bytes) -> bool:
        """As BuildKit does: what is there is not pushed."""
        return await self.head(content) or await self.push(content)

    async def mount(self, content: bytes, repository: Repository) -> bool:
        digest = digest_of(content)
        found = bool(await self._answer(self._registry.blobs.mount(repository, digest, APP)))
        if found:
            self._promises.promise([self._namespace.blob(digest)], self._began)
        return found

    async def push_manifest(
        self, document: Document, tag: Tag | None = None, repository: Repository = APP
    ) -> bool:
        promises, digest = self._promises, document.digest
        request = self._registry.manifests.push(
            repository, tag or digest, [], document.data, document.media_type
        )
        pushed = await self._answer(request)
        if pushed is None:
            return False
        keys = promises.whole(repository, digest)
        if is_cache(document.data):
            keys -= promises.doomed
        if pushed.subject is not None:
            promises.referrers[repository, pushed.subject].add(digest)
            self._owe_referrer(repository, pushed.subject)
        promises.promise({*keys, self._namespace.manifest(repository, digest)}, self._began)
        if tag is not None:
            promises.owe(repository, tag, digest, keys, self._began)
        return True

    def _owe_referrer(self, repository: Repository, subject: Digest) -> None:
        """Whoever has the subject has its referrers too."""
        promises = self._promises
        for tagged, tag, digest in promises.owed:
            whole = promises.whole(tagged, digest)
            if tagged == repository and self._namespace.manifest(repository, subject) in whole:
                promises.owe(repository, tag, digest, whole, self._began)

    async def push_image(
        self, document: Document, layers: Iterable[bytes], tag: Tag | None, *, offer: bool = True
    ) -> bool:
        for layer in layers:
            if not await (self.offer(layer) if offer else self.push(layer)):
                return False
        return await self.push_manifest(document, tag)

    async def export(self, export: Export, tag: Tag) -> bool:
        written = export.written
        document = Document(written.manifest, written.media_type)
        return await self.push_image(document, [*export.layers.values(), written.config], tag)

    async def get(
        self, reference: Reference, repository: Repository = APP
    ) -> StoredManifest | None:
        """Also an import: what a cache tag leads to is there with config and layers."""
        promises = self._promises
        found = await self._answer(self._registry.manifests.get(repository, reference))
        if found is None:
            return None
        keys = promises.whole(repository, found.digest) - promises.doomed
        record = isinstance(reference, Tag) and promises.record(repository, reference)
        if record and record.sources and found.digest == record.digest:
            keys |= self._named(found)
        promises.promise({*keys, self._namespace.manifest(repository, found.digest)}, self._began)
        if isinstance(reference, Tag):
            promises.owe(repository, reference, found.digest, keys, self._began)
        return found

    def _named(self, cache: StoredManifest) -> set[str]:
        """All that a cache names, which has to be there."""
        references = parse_manifest(cache.data, cache.media_type).references
        named = {self._namespace.blob(Digest.parse(each.digest)) for each in references}
        return named | {self._namespace.blob(config_of(cache))}

    async def delete(self, reference: Reference) -> None:
        """What it deletes is owed to nobody from when that begins."""
        gone = self._gone(reference)
        self._promises.deleting += gone
        for key in gone:
            self._promises.forget(key)
        await self._answer(self._registry.manifests.delete(APP, reference))
        for key in gone:
            self._promises.deleting.remove(key)
            self._promises.forget(key)

    def _gone(self, reference: Reference) -> list[str]:
        if isinstance(reference, Tag):
            return []
        subjects = [
            self._namespace.referrer(APP, subject, reference)
            for (repository, subject), referrers in self._promises.referrers.items()
            if repository == APP and reference in referrers
        ]
        return [self._namespace.manifest(APP, reference), *subjects]
