"""unite(): sources become one cache that names nothing but what exists."""

from __future__ import annotations

import json
from itertools import chain
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.buildkit.cache import Cache, Form
from cacheproxy.buildkit.manifest import CacheManifest, read_cache, read_manifest, write_cache
from cacheproxy.oci.digest import digest_of
from cacheproxy.registry.manifest_store import StoredManifest
from cacheproxy.registry.sources import Source
from cacheproxy.registry.union import Limits, Loaded, Union, unite
from tests.buildkit.generating import SECOND, random_cache
from tests.registry.exports import CREATED, Export, export, layer_of, named

LIMITS = Limits(1 << 20, 1 << 20)
LATE = 10**6 * SECOND

randoms = st.randoms(use_true_random=False)


def loaded(exported: Export, received_at: int = LATE) -> Loaded:
    """An export that is stored."""
    return _loaded(exported.written.manifest, exported.written.config, received_at)


def _loaded(manifest: bytes, config: bytes | None, received_at: int = LATE) -> Loaded:
    about = read_manifest(manifest)
    assert about is not None
    media_type = json.loads(manifest).get("mediaType", "")
    stored = StoredManifest(digest_of(manifest), media_type, manifest)
    source = Source(stored.digest, received_at, received_at, received_at)
    return Loaded(source, stored, about, config)


def random_loaded(random: Random) -> Loaded:
    """A random cache that is stored."""
    written = write_cache(random_cache(random))
    return _loaded(written.manifest, written.config, random.randint(20, 100) * SECOND)


def opaque(*layers: str) -> Loaded:
    """An export with layers whose config has a field that is unknown here."""
    written = export(*layers).written
    config = written.config[:-1] + b',"future":1}'
    manifest = written.manifest.replace(
        digest_of(written.config).encode(), digest_of(config).encode()
    )
    return _loaded(manifest, config)


def sizes(*layers: str) -> dict[str, int]:
    """What is stored, when these layers are."""
    return {named(layer_of(name)): len(layer_of(name)) for name in layers}


def united(parts: list[Loaded], stored: dict[str, int], limits: Limits = LIMITS) -> Union:
    union = unite(parts, stored, limits)
    assert union is not None
    return union


def cache_in(union: Union) -> Cache:
    """What a builder reads, which is all that the union says that it is."""
    assert union.config is not None, "it is as pushed"
    cache = read_cache(union.manifest.data, union.config)
    assert isinstance(cache, Cache)
    assert isinstance(union.cache, Cache)
    assert cache.descriptors == union.cache.descriptors
    assert len(cache.config.records) == len(union.cache.config.records)
    assert digest_of(union.manifest.data) == union.manifest.digest
    return cache


def hits(union: Union, *steps: str) -> list[str]:
    """Which of these steps have a result."""
    assert isinstance(union.cache, Cache)
    made = {record.digest for record in union.cache.config.records if record.results}
    return [step for step in steps if digest_of(step.encode()) in made]


@pytest.mark.parametrize("form", ["image", "index"])
def test_a_source_alone_is_served_byte_for_byte(form: Form) -> None:
    """There is nothing to be made of it."""
    one = export("a", "b", form=form)

    union = united([loaded(one)], sizes("a", "b"))

    assert union.manifest.data == one.written.manifest
    assert union.manifest.media_type == one.written.media_type
    assert union.config is None
    assert union.complete


def test_sources_become_one_cache_with_the_results_of_all() -> None:
    """Of an equal step there is one record."""
    union = united([loaded(export("a", "b")), loaded(export("a", "c"))], sizes("a", "b", "c"))

    assert hits(union, "a", "b", "c") == ["a", "b", "c"]
    assert len(cache_in(union).config.records) == 4
    assert union.complete


@pytest.mark.parametrize("form", ["image", "index"])
def test_a_layer_that_is_gone_takes_with_it_what_is_on_top_of_it(form: Form) -> None:
    """Its descriptor is in the manifest no more; the source is not complete, and says so."""
    union = united([loaded(export("a", "b", "c", form=form))], sizes("a", "c"))

    assert hits(union, "a", "b", "c") == ["a"]
    assert cache_in(union).descriptors.keys() == sizes("a").keys()
    assert cache_in(union).form == form
    assert not union.complete


def test_a_result_that_is_gone_gives_way_to_an_older_one_that_exists() -> None:
    """Of one step, in two sources."""
    new = export("a", created_at=CREATED + SECOND, made={"a": "new"})
    old = export("a", created_at=CREATED, made={"a": "old"})

    [layer] = cache_in(united([loaded(new), loaded(old)], sizes("new", "old"))).config.layers
    assert layer.blob in sizes("new")
    [layer] = cache_in(united([loaded(new), loaded(old)], sizes("old"))).config.layers
    assert layer.blob in sizes("old")


def test_the_size_of_a_layer_is_that_which_is_stored() -> None:
    """A source that says another one is not served as it is."""
    one = loaded(export("a"))
    [digest] = sizes("a")

    assert cache_in(united([one], {digest: 77})).descriptors[digest].size == 77


def test_a_time_in_the_future_is_taken_for_that_of_the_first_receipt() -> None:
    """A clock that is years ahead does not make a result the best for all that time."""
    future = export("a", created_at=LATE * 9, made={"a": "future"})
    later = export("a", created_at=LATE + SECOND, made={"a": "later"})
    parts = [loaded(future, LATE), loaded(later, LATE + 2 * SECOND)]

    cache = cache_in(united(parts, sizes("future", "later")))

    [result] = cache.config.records[-1].results
    assert result.created_at == LATE + SECOND
    assert cache.config.layers[result.layer].blob in sizes("later")


@pytest.mark.parametrize("bad", ["opaque", "too large", "gone", "rubbish"])
def test_a_source_that_cannot_be_merged_is_left_out(bad: str) -> None:
    """The others are served as if it was not there."""
    good = [loaded(export("a")), loaded(export("b"))]
    other = {
        "opaque": opaque("x"),
        "too large": _loaded(export("x").written.manifest, None),
        "gone": Loaded(Source(digest_of(b"gone"), LATE, LATE, LATE), gone=True),
        "rubbish": _loaded(export("x").written.manifest, b'{"records":[{"inputs":[[{"link":7}'),
    }[bad]
    stored = sizes("a", "b", "x")

    union = united([other, *good], stored)

    assert union.manifest == united(good, stored).manifest
    assert union.complete == (bad != "gone")


def test_the_latest_of_sources_that_cannot_be_merged_is_served_when_there_are_no_others() -> None:
    """Byte for byte as long as all is there, else without the descriptors of what is gone."""
    parts = [opaque("x", "y"), opaque("z")]
    assert parts[0].manifest is not None

    whole = united(parts, sizes("x", "y", "z"))
    assert whole.manifest == parts[0].manifest
    assert whole.complete

    trimmed = united(parts, sizes("x", "z"))
    about = read_manifest(trimmed.manifest.data)
    assert isinstance(about, CacheManifest)
    assert about.descriptors.keys() == sizes("x").keys()
    assert f"sha256:{about.config_digest.partition(':')[2]}" == digest_of(parts[0].config or b"")
    assert digest_of(trimmed.manifest.data) == trimmed.manifest.digest
    assert not trimmed.complete


def test_of_nothing_there_is_no_union() -> None:
    """Nor of sources that are all gone."""
    gone = Loaded(Source(digest_of(b"gone"), LATE, LATE, LATE), gone=True)

    assert unite([gone], {}, LIMITS) is None
    assert unite([], {}, LIMITS) is None


def test_a_source_over_the_limit_is_made_smaller() -> None:
    """BuildKit would ignore it as it is. What did not fit is counted."""
    names = [f"step {number}" for number in range(60)]
    big = export(*names)
    limit = len(big.written.config) // 2

    union = united([loaded(big)], sizes(*names), Limits(limit, 1 << 20))

    assert union.config is not None
    assert limit // 2 < len(union.config) <= limit
    assert union.left_out is not None
    assert union.left_out.results == 60 - len(hits(union, *names))
    assert union.complete


def test_each_of_many_large_sources_keeps_a_part() -> None:
    """Within the limit there is something of every build."""
    builds = [[f"{build} {step}" for step in range(30)] for build in range(4)]
    parts = [loaded(export(*steps), LATE + at) for at, steps in enumerate(builds)]
    limit = 2 * len(export(*builds[0]).written.config)

    union = united(parts, sizes(*chain.from_iterable(builds)), Limits(limit, 1 << 20))

    kept = [len(hits(union, *steps)) for steps in builds]
    assert len(cache_in(union).config.records) < 4 * 31
    assert min(kept) > 0
    assert union.records.keys() == {part.source.digest for part in parts}


@pytest.mark.parametrize("limit", range(1000, 5000, 200))
def test_the_first_steps_of_a_build_are_kept_with_its_last(limit: int) -> None:
    """However little there is room for: they are what is a hit when the next build differs. They
    are older than all else, since they have been hits before."""
    parts = []
    for at in range(8):
        steps = ("tools", f"copy {at}", f"run {at}")
        late = CREATED + at * SECOND
        parts.append(loaded(export(*steps, created_at=late, earlier={"tools": CREATED}), LATE + at))
    names = [f"{step} {at}" for at in range(8) for step in ("copy", "run")]

    union = united(parts, sizes("tools", *names), Limits(limit, 1 << 20))

    assert hits(union, "tools", "copy 7", "run 7") == ["tools", "copy 7", "run 7"]


@given(randoms)
def test_a_union_names_what_exists_within_the_limits_and_is_the_same_in_any_order(
    random: Random,
) -> None:
    """Whatever the sources are, and whatever of them is there."""
    parts = [random_loaded(random) for _ in range(random.randint(1, 4))]
    parts.extend([opaque("x")] * random.randint(0, 1))
    layers = sorted({layer for part in parts for layer in part.layers})
    stored = {layer: 1000 for layer in layers if random.random() < 0.8}
    limits = Limits(random.choice((1 << 20, 1500)), random.choice((1 << 20, 1500)))

    union = united(parts, stored, limits)
    random.shuffle(parts)

    assert united(parts, stored, limits).manifest == union.manifest
    about = read_manifest(union.manifest.data)
    assert isinstance(about, CacheManifest)
    assert about.descriptors.keys() <= stored.keys()
    assert len(union.manifest.data) <= limits.manifest_bytes
    if union.config is not None:
        assert len(cache_in(union).descriptors) == len(about.descriptors)
        assert len(union.config) <= limits.config_bytes
        assert digest_of(union.config) == about.config_digest
