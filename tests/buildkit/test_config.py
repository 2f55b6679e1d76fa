"""The cacheconfig blob: what is read, what is opaque, what is written."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.buildkit.cache import Alternative, Cache, Config, Layer, Opaque, Record, Result
from cacheproxy.buildkit.config import parse_config, write_config
from cacheproxy.buildkit.merge import Source, merge
from cacheproxy.buildkit.times import ZERO_TIME, format_time, parse_time
from tests.buildkit.generating import SECOND, digest, random_sources
from tests.buildkit.importer import VERSIONS, ask, import_all

A, B, C = digest("a"), digest("b"), digest("c")
TIME = "2026-01-02T03:04:05.000000006Z"


def parse(config: Any) -> Config | Opaque:
    return parse_config(json.dumps(config).encode())


def test_a_config_of_buildkit_is_read() -> None:
    """Links may point forward, as in BuildKit's order by digest; here sources come first."""
    config = parse(
        {
            "layers": [{"blob": A, "parent": 1}, {"blob": B, "parent": -1}],
            "records": [
                {
                    "layers": [{"layer": 0, "createdAt": TIME}],
                    "digest": A,
                    "inputs": [[{"selector": "sel", "link": 1}], [{"link": 1}]],
                },
                {"digest": B},
            ],
        }
    )

    inputs = ((Alternative("sel", 0),), (Alternative("", 0),))
    record = Record(A, inputs, (Result(1, parse_time(TIME)),))
    assert config == Config((Layer(B, -1), Layer(A, 0)), (Record(B), record))


def test_an_absent_parent_is_layer_0() -> None:
    """Go leaves out zeros, so only -1 is a root."""
    config = parse({"layers": [{"blob": A, "parent": -1}, {"blob": B}], "records": []})

    assert config == Config((Layer(A, -1), Layer(B, 0)), ())


def test_absent_is_zero_or_empty_as_in_go() -> None:
    """null and left-out fields are read as Go reads them."""
    result: dict[str, Any] = {"layers": [{}], "digest": A, "inputs": None}
    config = parse({"layers": [{"blob": A, "parent": -1}], "records": [result]})

    assert config == Config((Layer(A, -1),), (Record(A, (), (Result(0, ZERO_TIME),)),))
    assert parse({}) == Config((), ())


OPAQUE: dict[str, Any] = {
    "a list": [],
    "an unknown field": {"records": [], "new": 1},
    "an unknown field of a record": {"records": [{"digest": A, "new": 1}]},
    "chains": {"records": [{"digest": A, "chains": [{"layers": [0], "createdAt": TIME}]}]},
    "an input without alternatives": {"records": [{"digest": A, "inputs": [[]]}]},
    "too many inputs": {
        "records": [{"digest": A}, {"digest": B, "inputs": [[{"link": 0}]] * 10_001}]
    },
    "a link beyond the end": {"records": [{"digest": A, "inputs": [[{"link": 1}]]}]},
    "a link before the start": {"records": [{"digest": A, "inputs": [[{"link": -1}]]}]},
    "its own source": {"records": [{"digest": A, "inputs": [[{"link": 0}]]}]},
    "a cycle": {
        "records": [
            {"digest": A, "inputs": [[{"link": 1}]]},
            {"digest": B, "inputs": [[{"link": 0}]]},
        ]
    },
    "a layer on itself": {
        "layers": [{"blob": A}],
        "records": [{"digest": A, "layers": [{"layer": 0, "createdAt": TIME}]}],
    },
    "a parent beyond the end": {
        "layers": [{"blob": A, "parent": 7}],
        "records": [{"digest": A, "layers": [{"layer": 0, "createdAt": TIME}]}],
    },
    "a result in no layer": {"records": [{"digest": A, "layers": [{"layer": 0}]}]},
    "a time that is none": {
        "layers": [{"blob": A, "parent": -1}],
        "records": [{"digest": A, "layers": [{"layer": 0, "createdAt": "yesterday"}]}],
    },
    "a random digest as a source": {
        "records": [{"digest": "random:1"}, {"digest": A, "inputs": [[{"link": 0}]]}]
    },
    "a link that is a text": {"records": [{"digest": A, "inputs": [[{"link": "0"}]]}]},
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_buildkit_might_not_read_is_opaque(name: str) -> None:
    """Such a config is not taken apart, and says why."""
    opaque = parse(OPAQUE[name])

    assert isinstance(opaque, Opaque)
    assert opaque.reason


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"records":' + b"[" * 100_000])
def test_nonsense_is_opaque(data: bytes) -> None:
    """No bytes raise."""
    assert isinstance(parse_config(data), Opaque)


def test_all_that_buildkit_rejects_is_opaque() -> None:
    """Each config that v0.32.2 refuses is refused here, in variations of a good one."""
    variations = []
    for seed in range(600):
        random = Random(seed)
        config = json.loads(write_config(merge(random_sources(random)).cache.config))
        vary(random, config)
        variations.append(config)
    layers = [
        {"mediaType": "x", "digest": layer["blob"], "size": 1}
        for config in variations
        for layer in config.get("layers", [])
        if layer["blob"]
    ]
    unique = list({layer["digest"]: layer for layer in layers}.values())

    answers = import_all(VERSIONS[0], [ask(config, unique) for config in variations])

    rejected = 0
    for config, answer in zip(variations, answers, strict=True):
        if answer.outcome == "error":
            rejected += 1
            assert isinstance(parse(config), Opaque), answer.error
    assert rejected > 100


def vary(random: Random, config: Any) -> None:
    """Change one number or one list of a config."""
    spots: list[Any] = []
    for record in config.get("records", []):
        spots += [(record["inputs"], at) for at in range(len(record.get("inputs", [])))]
        spots += [(each, "link") for one in record.get("inputs", []) for each in one]
        spots += [(each, "layer") for each in record.get("layers", [])]
        spots.append((record, "digest"))
    spots += [(layer, "parent") for layer in config.get("layers", [])]
    if spots:
        where, key = random.choice(spots)
        numbers = range(-1, len(config["records"]) + 1)
        new: Any = random.choice(numbers) if key in ("link", "layer", "parent") else []
        where[key] = "random:x" if key == "digest" else new


@given(st.randoms(use_true_random=False))
def test_what_is_written_is_read_again(random: Random) -> None:
    """A normal form survives being written and read, but for the order of its records."""
    union = merge(random_sources(random)).cache
    read = parse_config(write_config(union.config))

    assert isinstance(read, Config)
    again = Source(Cache(read, union.descriptors, union.form), 1000 * SECOND)
    assert merge([again]).cache == union


def test_a_config_is_written_as_buildkit_does() -> None:
    """Sorted by digest, roots with parent -1, what is empty left out."""
    first, second = sorted((A, B))
    inputs = ((Alternative("s", 0), Alternative("", 0)),)
    records = (Record(second), Record(first, inputs, (Result(0, 0),)))

    written = json.loads(write_config(Config((Layer(C, -1),), records)))

    assert written == {
        "layers": [{"blob": C, "parent": -1}],
        "records": [
            {
                "layers": [{"layer": 0, "createdAt": "1970-01-01T00:00:00Z"}],
                "digest": first,
                "inputs": [[{"link": 1}, {"selector": "s", "link": 1}]],
            },
            {"digest": second},
        ],
    }


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.1Z", 100_000_000),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("1969-12-31T22:30:00-01:30", 0),
        ("0001-01-01T00:00:00Z", ZERO_TIME),
        ("9999-12-31T23:59:59.999999999Z", 253402300799_999999999),
    ],
)
def test_times_are_exact(text: str, nanoseconds: int) -> None:
    """To the nanosecond, in any zone, from year 1 to 9999."""
    assert parse_time(text) == nanoseconds
    assert parse_time(format_time(nanoseconds)) == nanoseconds


@given(st.integers(ZERO_TIME, 253402300799_999999999))
def test_each_time_can_be_written(nanoseconds: int) -> None:
    """And is read again as the same."""
    assert parse_time(format_time(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "1970-01-01", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00", "1970-01-01 00:00:00Z"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Go would refuse it too."""
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)
