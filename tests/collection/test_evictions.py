"""What policies do not keep is taken out of the records of tags, unless these were changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.collection.evictions import Evicted, Evictions
from cacheproxy.collection.retention import Policies, Policy
from cacheproxy.oci.manifest import OCI_MANIFEST
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.registry.registry import Registry
from tests.collection.rooms import APP, Store, image
from tests.registry.exports import TAG, Export, export


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "spool")


async def _export(replica: Registry, made: Export, repository: Repository = APP) -> str:
    data, media_type = made.written.manifest, made.written.media_type
    return (await replica.manifests.push(repository, TAG, [], data, media_type)).digest


async def _sources(replica: Registry, repository: Repository = APP) -> list[str]:
    record = await replica.tags.read(repository, TAG)
    return [] if record is None else sorted(source.digest for source in record.sources)


def _size(made: Export) -> int:
    return len(made.written.config) + sum(map(len, made.layers.values()))


def _evictions(store: Store, replica: Registry, policy: Policy) -> Evictions:
    return Evictions(store.bucket, store.namespace, replica.tags, Policies(policy))


async def _evict(store: Store, replica: Registry, policy: Policy, *more: Repository) -> Evicted:
    evictions = _evictions(store, replica, policy)
    evicted = await evictions.plan([APP, *more], store.time.nanoseconds())
    await evictions.apply(evicted)
    return evicted


async def test_caches_beyond_the_budget_go_those_used_longest_ago_first(store: Store) -> None:
    replica = await store.replica()
    old, new = export("old"), export("new")
    await _export(replica, old)
    store.time.now += 10
    kept = await _export(replica, new)
    await _evict(store, replica, Policy(cache_bytes=_size(old) + _size(new) - 1))

    assert await _sources(replica) == [kept]


async def test_a_layer_that_several_have_is_counted_once(store: Store) -> None:
    replica = await store.replica()
    one = export("base", "one")
    other = export("base", "other")
    for each in (one, other):
        await _export(replica, each)
        store.time.now += 10
    shared = len(one.layers["base"])
    await _evict(store, replica, Policy(cache_bytes=_size(one) + _size(other) - shared))
    assert len(await _sources(replica)) == 2

    await _evict(store, replica, Policy(cache_bytes=_size(one) + _size(other) - shared - 1))
    assert len(await _sources(replica)) == 1


async def test_a_tag_without_sources_goes(store: Store) -> None:
    replica = await store.replica()
    await _export(replica, export("run"))
    await _evict(store, replica, Policy(cache_bytes=1))
    assert await replica.tags.read(APP, TAG) is None


async def test_repositories_of_one_policy_share_its_budget(store: Store) -> None:
    replica = await store.replica()
    lib = Repository("ci/lib")
    first, second = export("first"), export("second")
    await _export(replica, first)
    store.time.now += 10
    await _export(replica, second, lib)
    await _evict(store, replica, Policy(cache_bytes=_size(second)), lib)

    assert await _sources(replica) == []
    assert len(await _sources(replica, lib)) == 1


async def test_what_was_pushed_meanwhile_stays(store: Store) -> None:
    """A tag and a source are taken out as they were, or not at all."""
    replica = await store.replica()
    manifest = image(b"layer")
    await _export(replica, export("run"))
    await replica.manifests.push(APP, Tag("image"), [], manifest, OCI_MANIFEST)
    store.time.now += 7200
    evictions = _evictions(store, replica, Policy(cache_bytes=1, image_age=1.0))
    evicted = await evictions.plan([APP], store.time.nanoseconds())
    assert (len(evicted.tags), len(evicted.sources)) == (1, 1)
    await _export(replica, export("run"))
    await replica.manifests.push(APP, Tag("image"), [], manifest, OCI_MANIFEST)
    await evictions.apply(evicted)

    assert len(await _sources(replica)) == 1
    assert await replica.tags.read(APP, Tag("image")) is not None


async def test_a_tag_that_goes_does_not_use_the_budget(store: Store) -> None:
    replica = await store.replica()
    lib = Repository("ci/lib")
    unused, used = export("unused"), export("used")
    await _export(replica, unused)
    store.time.now += 100
    await _export(replica, used, lib)
    policy = Policy(cache_unused=50.0, cache_bytes=_size(used))
    evicted = await _evict(store, replica, policy, lib)

    assert list(evicted.tags) == [(APP, TAG)]
    assert not evicted.sources


async def test_a_source_that_cannot_be_read_costs_nothing(store: Store) -> None:
    """It is not for the budget to say what becomes of it."""
    replica = await store.replica()
    digest = await _export(replica, export("run"))
    [key] = [key for key in store.bucket.objects if digest.rpartition(":")[2] in key]
    store.bucket.remove(key)
    await _evict(store, replica, Policy(cache_bytes=1))
    assert await _sources(replica) == [digest]
