"""The cacheconfig blob (cache/remotecache/v1/types/spec.go): bytes to values and back."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from cacheproxy.buildkit.cache import Alternative, Config, Layer, Opaque, Record, Result
from cacheproxy.buildkit.times import ZERO_TIME, format_time, parse_time

# RecursionError and UnicodeDecodeError: msgspec does not wrap them
_NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# BuildKit drops records whose digest starts with "random:" and then fails on links to them, so
# such a digest is none here.
_DIGEST: Final = re.compile(r"sha(?:256:[a-f0-9]{64}|384:[a-f0-9]{96}|512:[a-f0-9]{128})")


_MOST_INPUTS: Final = 10_000  # a step has a handful; the graph of a union has room for 2 ** 20


class _Layer(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    blob: str = ""
    parent: int = 0  # BuildKit leaves out 0, and so means 0 where there is none
    annotations: msgspec.Raw | None = None  # of stores without manifests


class _Result(msgspec.Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    layer: int = 0
    created_at: str | None = None


class _Input(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    selector: str = ""
    link: int = 0


class _Record(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    digest: str = ""
    layers: list[_Result] | None = None
    inputs: list[list[_Input]] | None = None


class _Config(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    layers: list[_Layer] | None = None
    records: list[_Record] | None = None


_decoder: Final = msgspec.json.Decoder(_Config)


class _Rejected(ValueError):
    """What BuildKit's parser rejects, or might."""


def parse_config(data: bytes) -> Config | Opaque:
    """Read a config; `Opaque` if BuildKit would not, or if it has fields that are unknown here.

    It is stricter than BuildKit where BuildKit would not look: all links must lead somewhere and
    nothing may loop, whether or not the layers are there.
    """
    try:
        config = _decoder.decode(data)
    except _NOT_JSON as error:
        return Opaque(f"not a cache config: {error}")
    try:
        layers, layer_places = _layers(config.layers or [])
        return Config(layers, _records(config.records or [], layer_places))
    except ValueError as error:
        return Opaque(str(error))


def _layers(written: list[_Layer]) -> tuple[tuple[Layer, ...], list[int]]:
    sources = [[] if layer.parent == -1 else [layer.parent] for layer in written]
    order, place = _in_order(sources, "layer")
    layers = []
    for at in order:
        layer = written[at]
        if not _DIGEST.fullmatch(layer.blob):
            raise _Rejected(f"layer {at} has no digest")
        layers.append(Layer(layer.blob, -1 if layer.parent == -1 else place[layer.parent]))
    return tuple(layers), place


def _records(written: list[_Record], layer_places: list[int]) -> tuple[Record, ...]:
    sources = [
        [link.link for alternatives in record.inputs or () for link in alternatives]
        for record in written
    ]
    order, place = _in_order(sources, "record")
    return tuple([_record(at, written[at], place, layer_places) for at in order])


def _record(at: int, record: _Record, place: list[int], layer_places: list[int]) -> Record:
    if not _DIGEST.fullmatch(record.digest):
        raise _Rejected(f"record {at} has no digest")
    if len(record.inputs or ()) > _MOST_INPUTS:
        raise _Rejected(f"record {at} has too many inputs")
    inputs = []
    for alternatives in record.inputs or ():
        if not alternatives:
            raise _Rejected(f"record {at} has an input without alternatives")
        inputs.append(tuple([Alternative(one.selector, place[one.link]) for one in alternatives]))
    results = []
    for result in record.layers or ():
        if not 0 <= result.layer < len(layer_places):
            raise _Rejected(f"record {at} has a result in layer {result.layer}, which is none")
        created_at = ZERO_TIME if result.created_at is None else parse_time(result.created_at)
        results.append(Result(layer_places[result.layer], created_at))
    return Record(record.digest, tuple(inputs), tuple(results))


def _in_order(sources: Sequence[Sequence[int]], noun: str) -> tuple[list[int], list[int]]:
    """An order with sources first, and each one's place in it; stable if it is so already."""
    if all(0 <= source < at for at, each in enumerate(sources) for source in each):
        return list(range(len(sources))), list(range(len(sources)))
    missing = [0] * len(sources)
    users: list[list[int]] = [[] for _ in sources]
    for at, each in enumerate(sources):
        for source in each:
            if not 0 <= source < len(sources):
                raise _Rejected(f"{noun} {at} links to {source}, which is none")
            users[source].append(at)
        missing[at] = len(each)
    order = [at for at, count in enumerate(missing) if not count]
    for at in order:
        for user in users[at]:
            missing[user] -= 1
            if not missing[user]:
                order.append(user)
    if len(order) < len(sources):
        raise _Rejected(f"a {noun} is its own source")
    place = [0] * len(sources)
    for new, old in enumerate(order):
        place[old] = new
    return order, place


class _OutLayer(msgspec.Struct, gc=False):
    blob: str
    parent: int


class _OutResult(msgspec.Struct, gc=False, rename="camel"):
    layer: int
    created_at: str


class _OutInput(msgspec.Struct, gc=False, omit_defaults=True):
    # without a default, so that it is written
    link: int
    selector: str = ""


class _OutRecord(msgspec.Struct, gc=False, omit_defaults=True):
    digest: str
    layers: tuple[_OutResult, ...] = ()
    inputs: tuple[tuple[_OutInput, ...], ...] = ()


class _OutConfig(msgspec.Struct, gc=False, omit_defaults=True):
    layers: tuple[_OutLayer, ...] = ()
    records: tuple[_OutRecord, ...] = ()


def write_config(config: Config) -> bytes:
    """The config as JSON, in BuildKit's order: by digest, and what ties as it is in `config`."""
    layer_order, layer_place = _sorted([layer.blob for layer in config.layers])
    order, place = _sorted([record.digest for record in config.records])
    layers = [config.layers[at] for at in layer_order]
    records = [config.records[at] for at in order]
    return msgspec.json.encode(
        _OutConfig(
            layers=tuple(
                [
                    _OutLayer(layer.blob, layer_place[layer.parent] if layer.parent >= 0 else -1)
                    for layer in layers
                ]
            ),
            records=tuple([_out_record(record, place, layer_place) for record in records]),
        )
    )


def _sorted(digests: list[str]) -> tuple[list[int], list[int]]:
    order = sorted(range(len(digests)), key=digests.__getitem__)
    place = [0] * len(digests)
    for new, old in enumerate(order):
        place[old] = new
    return order, place


def _out_record(record: Record, place: list[int], layer_place: list[int]) -> _OutRecord:
    inputs = [
        tuple(
            [
                _OutInput(link, selector)
                for link, selector in sorted(
                    [(place[one.record], one.selector) for one in alternatives]
                )
            ]
        )
        for alternatives in record.inputs
    ]
    results = [
        _OutResult(layer_place[result.layer], format_time(result.created_at))
        for result in record.results
    ]
    return _OutRecord(record.digest, tuple(results), tuple(inputs))
