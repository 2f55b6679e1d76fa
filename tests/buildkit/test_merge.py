"""merge(): the laws of the union."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cacheproxy.buildkit.cache import (
    DIFF_ID,
    Alternative,
    Cache,
    Config,
    Layer,
    LayerDescriptor,
    Record,
    Result,
)
from cacheproxy.buildkit.manifest import write_cache
from cacheproxy.buildkit.merge import Merged, Source, merge
from tests.buildkit.generating import (
    GZIP,
    LATE,
    cache_of,
    descriptor,
    digest,
    long_source,
    random_cache,
    random_sources,
)
from tests.buildkit.growth import LINEAR, growth

randoms = st.randoms(use_true_random=False)


def one_step(*results: tuple[str, int], received_at: int = LATE) -> Source:
    """A cache of one step on a base, with results of one layer each."""
    layers = [Layer(digest(name), -1) for name, _ in results]
    made = tuple(Result(at, created_at) for at, (_, created_at) in enumerate(results))
    step = Record(digest("step"), ((Alternative("", 0),),), made)
    return Source(cache_of(layers, [Record(digest("base")), step]), received_at)


def results_of(merged: Merged) -> list[tuple[str, int]]:
    """The blobs and times of all results."""
    config = merged.cache.config
    return [
        (config.layers[result.layer].blob, result.created_at)
        for record in config.records
        for result in record.results
    ]


def as_source(merged: Merged) -> Source:
    return Source(merged.cache, LATE)


@given(randoms)
def test_merging_is_idempotent(random: Random) -> None:
    """A union merged with itself, or with its sources again, is the same union."""
    sources = random_sources(random, mixed=random.random() < 0.2)
    union = merge(sources)

    assert merge([as_source(union)]).cache == union.cache
    assert merge([as_source(union), as_source(union)]).cache == union.cache
    assert merge([*sources, *sources]).cache == union.cache


@given(randoms)
def test_the_order_of_the_sources_does_not_matter(random: Random) -> None:
    """The same sources in any order are the same bytes."""
    sources = random_sources(random, most=6, mixed=random.random() < 0.2)
    shuffled = sources.copy()
    random.shuffle(shuffled)

    assert write_cache(merge(shuffled).cache) == write_cache(merge(sources).cache)


@given(randoms)
@settings(max_examples=200)
def test_merging_is_associative_as_long_as_nothing_is_cut(random: Random) -> None:
    """A union of unions is the union of all sources, unless a cycle had to be cut on the way."""
    one, two, *rest = random_sources(random, most=4, records=8)
    pair, others, whole = merge([one, two]), merge(rest), merge([one, two, *rest])
    assume(not (pair.cut or others.cut or whole.cut))

    assert merge([as_source(pair), as_source(others)]).cache == whole.cache


@given(randoms)
def test_a_union_is_in_normal_form(random: Random) -> None:
    """One result at most, nothing dead, sources before users, and nothing left to join."""
    config = merge(random_sources(random, mixed=random.random() < 0.3)).cache.config

    led_on = {each.record for record in config.records for one in record.inputs for each in one}
    for at, record in enumerate(config.records):
        assert len(record.results) <= 1
        assert record.results or at in led_on
        assert all(each.record < at for one in record.inputs for each in one)
        assert all(record.inputs)
        for other in config.records[at + 1 :]:
            if other.digest == record.digest:
                both = bool(record.inputs) == bool(other.inputs)
                pairs = zip(record.inputs, other.inputs, strict=False)
                assert not (both and all(set(mine) & set(its) for mine, its in pairs))


@given(randoms)
def test_members_are_the_records_of_each_source(random: Random) -> None:
    """Each record of the union is from a source, and each source has its own digests there."""
    sources = random_sources(random)
    merged = merge(sources)
    records = merged.cache.config.records

    assert frozenset().union(*merged.members) == frozenset(range(len(records)))
    for source, members in zip(sources, merged.members, strict=True):
        own = {record.digest for record in source.cache.config.records}
        assert {records[at].digest for at in members} <= own


@given(randoms)
def test_nothing_that_is_gone_is_in_a_union(random: Random) -> None:
    """Existence is a filter before the union: the same as if the sources had never had it."""
    sources = random_sources(random)
    layers = sorted({blob for source in sources for blob in source.cache.descriptors})
    stored = dict.fromkeys([blob for blob in layers if random.random() < 0.7], 7)

    merged = merge(sources, stored)

    assert merged.cache.descriptors.keys() <= stored.keys()
    assert {each.size for each in merged.cache.descriptors.values()} <= {7}
    assert {layer.blob for layer in merged.cache.config.layers} == merged.cache.descriptors.keys()


def test_the_newest_result_wins() -> None:
    """Of one source or of several; the least digest if they are equally new."""
    least, other = sorted(("one", "two"), key=digest)

    newer = merge([one_step((least, 1)), one_step((other, 2))])
    tied = merge([one_step((other, 2), (least, 2))])

    assert results_of(newer) == [(digest(other), 2)]
    assert results_of(tied) == [(digest(least), 2)]


def test_the_newest_result_that_exists_wins() -> None:
    """A lost result does not hide an older one that is still there."""
    merged = merge([one_step(("old", 1)), one_step(("lost", 2))], {digest("old"): 5})

    assert results_of(merged) == [(digest("old"), 1)]


def test_a_result_from_the_future_does_not_win_for_ever() -> None:
    """A result counts as created when its source was first received, if it says later."""
    future = one_step(("future", 10**9), received_at=5)

    assert results_of(merge([future])) == [(digest("future"), 5)]
    assert results_of(merge([future, one_step(("now", 6))])) == [(digest("now"), 6)]


def with_diff_id(name: str, diff_id: str | None) -> Source:
    source = one_step((name, 1))
    annotations = () if diff_id is None else ((DIFF_ID, digest(diff_id)),)
    descriptors = {digest(name): LayerDescriptor(GZIP, 3, annotations)}
    return Source(Cache(source.cache.config, descriptors), LATE)


def test_a_layer_with_two_diff_ids_is_dropped() -> None:
    """One of the sources is wrong about it, so nobody gets it."""
    merged = merge([with_diff_id("layer", "one"), with_diff_id("layer", "two")])

    assert merged.disputed == {digest("layer")}
    assert merged.cache.config == Config((), ())


def test_a_layer_without_a_diff_id_is_of_no_use() -> None:
    """BuildKit cannot load it; a source that knows the diffID helps the one that does not."""
    unknown, known = with_diff_id("layer", None), with_diff_id("layer", "tar")

    assert results_of(merge([unknown])) == []
    assert results_of(merge([unknown, known])) == results_of(merge([known])) != []


def test_one_source_in_index_form_makes_the_union_an_index() -> None:
    """An old BuildKit among the runners can still read the tag."""
    source = one_step(("layer", 1))
    index = Source(Cache(source.cache.config, source.cache.descriptors, "index"), LATE)

    assert merge([source, index]).cache.form == "index"
    assert merge([source]).cache.form == "image"


def test_no_sources_are_an_empty_cache() -> None:
    """Nothing in, nothing out."""
    assert merge([]).cache == Cache(Config((), ()), {})


def test_joining_goes_on_as_long_as_it_has_consequences() -> None:
    """Records whose sources are joined become alike themselves, all the way up."""

    def tower(*roots: int) -> Cache:
        names = [Record(digest("root", at)) for at in range(3)]
        first = Record(digest("s", 0), (tuple(Alternative("", at) for at in roots),))
        steps = [
            Record(digest("s", at), ((Alternative("", at + 2),),), (Result(0, at),))
            for at in range(1, 50)
        ]
        return cache_of([Layer(digest("layer"), -1)], [*names, first, *steps])

    apart = merge([Source(tower(0), LATE), Source(tower(1), LATE)])
    joined = merge([Source(each, LATE) for each in (tower(0), tower(1), tower(0, 1))])

    assert (apart.joined, len(apart.cache.config.records)) == (0, 102)
    assert (joined.joined, len(joined.cache.config.records)) == (100, 52)


@pytest.mark.parametrize("keys", [False, True])
def test_a_hundred_sources_of_two_thousand_records(keys: bool) -> None:
    """Time is linear in them; how much it is, a benchmark tells."""
    sources = [long_source(number, keys=keys) for number in range(100)]
    merged = merge(sources)

    assert growth(merge, sources[:25], sources) < LINEAR
    assert len(merged.cache.config.records) > 30_000
    assert (merged.joined > 40_000) == keys


def test_many_copies_into_one_base_are_not_compared_with_each_other() -> None:
    """Time is linear in records of one step that share one input but not the other."""

    def cache(first: int, count: int) -> Cache:
        records = [Record(digest("base"))]
        for at in range(first, first + count):
            records.append(Record(digest("context", at)))
            inputs = ((Alternative("", 0),), (Alternative("", len(records) - 1),))
            records.append(Record(digest("copy"), inputs, (Result(0, at),)))
        return cache_of([Layer(digest("layer"), -1)], records)

    sources = [Source(cache(at * 1000, 1000), LATE) for at in range(20)]

    assert len(merge(sources).cache.config.records) == 40_001
    assert growth(merge, sources[:5], sources) < LINEAR


def test_the_descriptor_of_a_layer_does_not_depend_on_who_is_first() -> None:
    """Sources may describe a layer differently, as with estargz; all get the same bytes."""
    cache = random_cache(Random(1))
    more = {
        blob: descriptor(blob)._replace(annotations=(*descriptor(blob).annotations, ("z", "toc")))
        for blob in cache.descriptors
    }
    sources = [Source(cache, LATE), Source(Cache(cache.config, more, cache.form), LATE)]

    assert merge(sources).cache == merge(sources[::-1]).cache
