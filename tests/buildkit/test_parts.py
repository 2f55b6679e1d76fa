"""trim() and compact(): parts of a cache, which hold together as the whole did."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.buildkit.cache import Alternative, Cache, Layer, Record, Result
from cacheproxy.buildkit.compact import IMPORT_LIMIT, compact
from cacheproxy.buildkit.keeping import LeftOut
from cacheproxy.buildkit.lineages import lineages
from cacheproxy.buildkit.manifest import write_cache
from cacheproxy.buildkit.merge import Source, merge
from cacheproxy.buildkit.trim import trim
from tests.buildkit.generating import LATE, SECOND, cache_of, digest, random_cache, random_sources
from tests.buildkit.growth import LINEAR, growth

randoms = st.randoms(use_true_random=False)


def sound(part: Cache, whole: Cache, left_out: LeftOut) -> None:
    """Check that `part` is a part of `whole` without loose ends, and what was counted."""
    records, layers = part.config.records, part.config.layers
    assert part.descriptors.keys() == {layer.blob for layer in layers}
    assert all(-1 <= layer.parent < at for at, layer in enumerate(layers))
    assert all(
        0 <= each.record < at
        for at, record in enumerate(records)
        for one in record.inputs
        for each in one
    )
    used = {result.layer for record in records for result in record.results}
    used |= {layer.parent for layer in layers}
    assert used - {-1} == set(range(len(layers)))
    led_on = {each.record for record in records for one in record.inputs for each in one}
    assert all(record.results or at in led_on for at, record in enumerate(records))
    assert not Counter(ways(part)) - Counter(ways(whole))
    assert left_out.records == len(whole.config.records) - len(records)
    assert left_out.layers == len(whole.descriptors) - len(part.descriptors)
    assert min(left_out) >= 0


def ways(cache: Cache) -> list[str]:
    """Each record with all that leads to it, in words."""
    texts: list[str] = []
    for record in cache.config.records:
        inputs = [
            sorted((each.selector, texts[each.record]) for each in one) for one in record.inputs
        ]
        texts.append(digest(record.digest, inputs))
    return texts


def result_blobs(cache: Cache) -> list[str]:
    """The last layers of all results."""
    config = cache.config
    return [config.layers[one.layer].blob for each in config.records for one in each.results]


@given(randoms)
def test_trimming_only_removes(random: Random) -> None:
    """What is gone, what needs it, and what then leads nowhere; no more, and twice is once."""
    cache = random_cache(random) if random.random() < 0.5 else merge(random_sources(random)).cache
    stored = {blob: 1000 for blob in cache.descriptors if random.random() < 0.7}

    trimmed, left_out = trim(cache, stored)

    assert trimmed.descriptors.keys() <= stored.keys()
    sound(trimmed, cache, left_out)
    expected = sum(
        len(each.results) for each in merge([Source(cache, LATE)], stored).cache.config.records
    )
    assert expected <= len(result_blobs(trimmed))
    assert trim(trimmed, stored) == (trimmed, LeftOut(0, 0, 0))


@given(randoms)
def test_trimming_a_union_is_a_union(random: Random) -> None:
    """A normal form stays one."""
    union = merge(random_sources(random)).cache
    stored = {blob: 1000 for blob in union.descriptors if random.random() < 0.7}
    trimmed, _ = trim(union, stored)

    assert merge([Source(trimmed, LATE)]).joined == 0


def test_trimming_nothing_changes_nothing() -> None:
    """A complete cache is the same after it, but for sizes, which are the bucket's."""
    union = merge(random_sources(Random(3))).cache

    assert trim(union, dict.fromkeys(union.descriptors, 1000)) == (union, LeftOut(0, 0, 0))
    resized, _ = trim(union, dict.fromkeys(union.descriptors, 5))
    assert resized.config == union.config
    assert {each.size for each in resized.descriptors.values()} == {5}


@given(randoms, st.integers(0, 4000), st.integers(0, 4000))
def test_a_compact_cache_is_within_both_limits(random: Random, config: int, manifest: int) -> None:
    """Whatever the limits (that an empty cache keeps), and what is left holds together."""
    sources = random_sources(random, records=20)
    merged = merge(sources)
    empty = write_cache(merge([]).cache)
    limits = (len(empty.config) + 30 + config, len(empty.manifest) + 30 + manifest)

    part, left_out = compact(
        merged.cache,
        lineages(merged, sources),
        config_limit=limits[0],
        manifest_limit=limits[1],
    )

    written = write_cache(part)
    assert len(written.config) <= limits[0]
    assert len(written.manifest) <= limits[1]
    sound(part, merged.cache, left_out)
    assert merge([Source(part, LATE)]).joined == 0


def test_what_fits_is_left_alone() -> None:
    """The very same value, so that its bytes stay the same too."""
    union = merge(random_sources(Random(5))).cache

    assert compact(union) == (union, LeftOut(0, 0, 0))
    assert compact(union)[0] is union


def steps(name: str, count: int, *, at: int = 0) -> Cache:
    """A chain of `count` steps, each with a layer on top of the last one."""
    layers = [Layer(digest(name, step), step - 1) for step in range(count)]
    records = [Record(digest(name, "base"))]
    for step in range(count):
        inputs = ((Alternative("", step),),)
        result = Result(step, (at + step) * SECOND)
        records.append(Record(digest(name, "step", step), inputs, (result,)))
    return cache_of(layers, records)


def bush(name: str, count: int, *, at: int = 0) -> Cache:
    """Steps side by side on one base, all with the same layer."""
    records = [Record(digest("base"))]
    for step in range(count):
        result = Result(0, (at + step) * SECOND)
        records.append(Record(digest(name, step), ((Alternative("", 0),),), (result,)))
    return cache_of([Layer(digest("layer"), -1)], records)


def test_a_pushed_cache_over_the_limit_becomes_importable() -> None:
    """BuildKit would ignore it without a word; the newest of it fits and is kept whole."""
    cache = merge([Source(bush("big", 8000), LATE)]).cache
    assert len(write_cache(cache).config) > IMPORT_LIMIT

    part, left_out = compact(cache)

    assert 0.95 * IMPORT_LIMIT < len(write_cache(part).config) <= IMPORT_LIMIT
    assert left_out.records == left_out.results > 0
    kept = {record.digest for record in part.config.records} - {digest("base")}
    assert kept == {digest("big", at) for at in range(8000 - len(kept), 8000)}


def test_results_that_need_less_are_kept_when_the_newest_does_not_fit() -> None:
    """A chain that is too long as a whole is kept from its root up to where it fits."""
    part, _ = compact(steps("chain", 6), manifest_limit=1400)

    assert result_blobs(part) == [digest("chain", at) for at in range(3)]


def test_lineages_take_turns() -> None:
    """Forty nearly equal pushes do not crowd out the one of another platform."""
    busy = [Source(bush("amd64", 60, at=number), LATE + number) for number in range(40)]
    rare = Source(bush("arm64", 60), LATE - 100 * SECOND)
    sources = [*busy, rare]
    merged = merge(sources)
    found = lineages(merged, sources)

    part, left_out = compact(merged.cache, found, config_limit=12_000)

    assert [len(each) for each in found] == [40, 1]
    results = {each.digest for each in part.config.records if each.results}
    amd64 = {digest("amd64", at) for at in range(60)} & results
    assert left_out.results > 50
    assert abs(len(amd64) - len(results - amd64)) <= 1


def test_a_lineage_has_its_turn_even_if_its_newest_does_not_fit() -> None:
    """It gets the newest that does."""
    sources = [Source(steps(name, 30), LATE + at) for at, name in enumerate(("b", "a"))]
    merged = merge(sources)

    part, _ = compact(merged.cache, lineages(merged, sources), config_limit=12_000)

    kept = {each.digest for each in part.config.records if each.results}
    assert digest("a", "step", 29) in kept
    assert any(digest("b", "step", at) in kept for at in range(15, 30))


def test_the_newest_source_has_the_first_turn() -> None:
    """With room for one result, it is the newest of the newest source."""
    sources = [Source(steps(name, 1), LATE + at) for at, name in enumerate(("a", "c", "b"))]
    merged = merge(sources)

    part, _ = compact(merged.cache, lineages(merged, sources), config_limit=500)

    assert result_blobs(part) == [digest("b", 0)]


def test_equally_new_sources_are_ordered_by_their_results_then_by_digest() -> None:
    """So that all replicas choose alike."""
    late = Source(steps("late", 1, at=9), LATE, "z")
    early = [Source(steps(name, 1, at=1), LATE, name) for name in ("b", "a")]
    sources = [*early, late]
    merged = merge(sources)

    first = [
        {merged.cache.config.records[at].digest for at in lineage[0]}
        for lineage in lineages(merged, sources)
    ]

    assert first == [{digest(name, "base"), digest(name, "step", 0)} for name in ("late", "a", "b")]


def test_sources_that_have_little_in_common_are_lineages_of_their_own() -> None:
    """Half of the records or fewer in common is not enough."""
    base = steps("base", 4)
    layers = list(base.config.layers)
    sources = []
    for name in ("one", "two"):
        own = [
            Record(digest(name, at), ((Alternative("", 4),),), (Result(3, at),)) for at in range(6)
        ]
        sources.append(Source(cache_of(layers, [*base.config.records, *own]), LATE))
    merged = merge(sources)

    assert len(lineages(merged, sources)) == 2


def test_a_huge_union_is_compacted_in_a_moment() -> None:
    """Time is linear in its records, of which there are 100,000."""

    def compacted(sources: list[Source]) -> tuple[Cache, LeftOut]:
        merged = merge(sources)
        return compact(merged.cache, lineages(merged, sources))

    sources = [Source(steps(str(number), 1000), LATE + number) for number in range(100)]
    part, left_out = compacted(sources)

    assert growth(compacted, sources[:25], sources) < LINEAR
    assert left_out.results > 90_000
    assert len(write_cache(part).manifest) <= IMPORT_LIMIT
