"""What BuildKit itself makes of our unions: its own parser and key storage, in two versions."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest

from cacheproxy.buildkit.cache import Alternative, Cache, Config, Layer, Record, Result
from cacheproxy.buildkit.compact import compact
from cacheproxy.buildkit.merge import Merged, Source, merge
from cacheproxy.buildkit.trim import trim
from tests.buildkit.generating import cache_of, digest, random_sources
from tests.buildkit.importer import VERSIONS, import_all, question

# A term says how a build would come to a step: a digest, and how it would come to each input.
Term = tuple[str, tuple[tuple[str, "Term"], ...]]

Unions = list[tuple[list[Source], Merged]]

UNIONS = 10_000


@pytest.fixture(scope="module")
def unions() -> Unions:
    """The unions that all tests here look at."""
    made = []
    for seed in range(UNIONS):
        sources = random_sources(Random(seed), most=3, records=10)
        made.append((sources, merge(sources)))
    return made


def crashing_pair(*, step_on_top: bool) -> tuple[Cache, Cache]:
    """{b; e1=(e,[b]); e2=(e,[e1|a])} and {e3=(e,[b|a])}, maybe with a step on top of e2."""
    layers = [Layer(digest("layer", at), -1) for at in range(3)]
    b, a, step = Record(digest("b")), Record(digest("a")), digest("e")
    e1 = Record(step, ((Alternative("", 0),),), (Result(0, 1),))
    e2 = Record(step, ((Alternative("", 2), Alternative("", 1)),), (Result(1, 1),))
    e3 = Record(step, ((Alternative("", 0), Alternative("", 1)),), (Result(0, 1),))
    top = [Record(digest("f"), ((Alternative("", 3),),), (Result(2, 1),))] * step_on_top
    return cache_of(layers, [b, a, e1, e2, *top]), cache_of(layers[:1], [b, a, e3])


def naive_union(one: Cache, other: Cache) -> Cache:
    """The union in which records are one if their digests and inputs are written alike."""
    records = list(one.config.records)
    layers = list(one.config.layers)
    places: list[int] = []
    for record in other.config.records:
        inputs = tuple(
            tuple(Alternative(each.selector, places[each.record]) for each in alternatives)
            for alternatives in record.inputs
        )
        alike = [
            at
            for at, each in enumerate(records)
            if (each.digest, each.inputs) == (record.digest, inputs)
        ]
        places.append(alike[0] if alike else len(records))
        if not alike:
            records.append(Record(record.digest, inputs, record.results))
    return cache_of(layers, records)


def test_a_naive_union_kills_buildkit() -> None:
    """BuildKit recurses without end on records that it joins into a cycle: why merge() exists."""
    union = naive_union(*crashing_pair(step_on_top=True))

    # it begins with any of those that it joins, so it does not always happen
    outcomes = [answer.outcome for answer in import_all(VERSIONS[0], [question(union)] * 8)]

    assert "crash" in outcomes


def test_a_naive_union_loses_its_records() -> None:
    """Without a step on top the cycle hides all of them: not a crash, but not one hit either."""
    union = naive_union(*crashing_pair(step_on_top=False))

    answers = import_all(VERSIONS[0], [question(union)] * 8)

    assert (0, 0) in {(answer.records_out, answer.results) for answer in answers}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step_on_top", [False, True])
def test_the_union_of_the_same_two_is_imported(version: str, step_on_top: bool) -> None:
    """merge() joins them itself and cuts the cycle."""
    pair = crashing_pair(step_on_top=step_on_top)
    merged = merge([Source(each, 10) for each in pair])

    answers = import_all(version, [question(merged.cache, times=20)] * 10)

    assert merged.cut == 1
    count = len(merged.cache.config.records)
    assert {(a.outcome, a.records_out, a.found) for a in answers} == {("ok", count, count)}


@pytest.mark.parametrize("version", VERSIONS)
def test_all_unions_are_imported_as_they_are_written(unions: Unions, version: str) -> None:
    """No error, no crash, nothing joined, nothing grown, each result found, in 10,000 unions."""
    caches = [merged.cache for _, merged in unions]

    answers = import_all(version, [question(each) for each in caches])

    for made, answer in zip(caches, answers, strict=True):
        records = made.config.records
        assert (answer.outcome, answer.error) == ("ok", "")
        assert answer.records_in == answer.records_out == answer.found == len(records)
        assert answer.results == sum(len(record.results) for record in records)


@pytest.mark.parametrize("version", VERSIONS)
def test_records_with_too_few_inputs_do_no_harm(version: str) -> None:
    """Records of one digest with different numbers of inputs, as an attacker might push them."""
    caches = [merge(random_sources(Random(seed), most=3, mixed=True)).cache for seed in range(1000)]

    answers = import_all(version, [question(each) for each in caches])

    for made, answer in zip(caches, answers, strict=True):
        assert answer.outcome == "ok"
        assert answer.records_in == answer.records_out == answer.found == len(made.config.records)


@pytest.mark.parametrize("version", VERSIONS)
def test_trimmed_and_compacted_unions_are_imported(unions: Unions, version: str) -> None:
    """What is left after both is as good as a union."""
    caches = []
    for seed, (_, merged) in enumerate(unions[:1000]):
        layers = sorted(merged.cache.descriptors)
        stored = Random(seed).sample(layers, len(layers) * 3 // 4)
        trimmed, _ = trim(merged.cache, dict.fromkeys(stored, 1))
        caches.append(compact(trimmed, config_limit=1500, manifest_limit=1500)[0])

    answers = import_all(version, [question(each) for each in caches])

    for made, answer in zip(caches, answers, strict=True):
        assert answer.outcome == "ok"
        assert answer.records_in == answer.records_out == answer.found == len(made.config.records)


def test_buildkit_reexports_the_same_union(unions: Unions) -> None:
    """Import and export of a union by v0.32.2 changes nothing; a merge of it neither."""
    chosen = [merged.cache for _, merged in unions[:500]]

    answers = import_all(VERSIONS[0], [question(each, give_back=True) for each in chosen])

    for made, answer in zip(chosen, answers, strict=True):
        again = Cache(answer.reexported(), made.descriptors, made.form)
        assert merge([Source(again, 100 * 10**9)]).cache == made


def test_a_union_has_the_hits_of_each_source(unions: Unions) -> None:
    """However a build comes to a result of one source, it comes to one as new in the union.

    Where a cycle had to be cut that is so only for results that were reached without it, so these
    unions are looked at without their ways, in the next test.
    """
    checked = 0
    whole = [(sources, merged) for sources, merged in unions[:3000] if not merged.cut]
    answers = import_all(VERSIONS[0], [question(m.cache, give_back=True) for _, m in whole])
    for seed, ((sources, _), answer) in enumerate(zip(whole, answers, strict=True)):
        union = answer.reexported()
        for source in sources:
            for at, record in enumerate(source.cache.config.records):
                if record.results:
                    created_at = min(record.results[0].created_at, source.received_at)
                    term = random_term(Random(seed), source.cache.config, at)
                    hits = [union.records[hit].results for hit in matching(union, term)]
                    assert any(hit and hit[0].created_at >= created_at for hit in hits)
                    checked += 1
    assert checked > 10_000


def test_a_union_whose_cycles_were_cut_has_all_steps_with_results(unions: Unions) -> None:
    """A cut costs ways to a record, never the record: each step still has its newest result."""
    for sources, merged in unions:
        if merged.cut:
            newest: dict[str, int] = defaultdict(int)
            for source in sources:
                for record in source.cache.config.records:
                    for result in record.results:
                        at = min(result.created_at, source.received_at)
                        newest[record.digest] = max(newest[record.digest], at)
            kept: dict[str, int] = defaultdict(int)
            for record in merged.cache.config.records:
                for result in record.results:
                    kept[record.digest] = max(kept[record.digest], result.created_at)
            assert kept == newest


def random_term(random: Random, config: Config, at: int) -> Term:
    """One of the ways to a record."""
    record = config.records[at]
    chosen = [random.choice(alternatives) for alternatives in record.inputs]
    ways = tuple((each.selector, random_term(random, config, each.record)) for each in chosen)
    return record.digest, ways


def matching(config: Config, term: Term) -> set[int]:
    """The records that BuildKit finds by a way: those that have it, input by input."""
    step, ways = term
    sources = [(selector, matching(config, way)) for selector, way in ways]
    return {
        at
        for at, record in enumerate(config.records)
        if record.digest == step
        and len(record.inputs) == len(sources)
        and all(
            any(each.selector == selector and each.record in found for each in alternatives)
            for alternatives, (selector, found) in zip(record.inputs, sources, strict=True)
        )
    }
