"""A part of a cache as a cache of its own."""

from collections.abc import Sequence
from typing import NamedTuple

from cacheproxy.buildkit.cache import Alternative, Cache, Config, Layer, Record, Result


class LeftOut(NamedTuple):
    """What a part does not have of the whole; layers are counted by digest."""

    records: int
    results: int
    layers: int


def keep(
    cache: Cache, kept: Sequence[bool], results: Sequence[tuple[Result, ...]]
) -> tuple[Cache, LeftOut]:
    """The kept records with the given results, and the layers of these, in the order they had.

    With a record all sources of its inputs must be kept.
    """
    layers, layer_places = _layers(cache.config.layers, kept, results)
    records: list[Record] = []
    places: list[int] = []
    for record, keeping, each in zip(cache.config.records, kept, results, strict=True):
        places.append(len(records))
        if keeping:
            inputs = tuple(
                [
                    tuple([Alternative(one.selector, places[one.record]) for one in alternatives])
                    for alternatives in record.inputs
                ]
            )
            moved = tuple([Result(layer_places[one.layer], one.created_at) for one in each])
            records.append(Record(record.digest, inputs, moved))
    blobs = sorted({layer.blob for layer in layers})
    part = Cache(
        Config(tuple(layers), tuple(records)),
        {blob: cache.descriptors[blob] for blob in blobs},
        cache.form,
    )
    return part, _left_out(cache, part)


def _layers(
    layers: Sequence[Layer], kept: Sequence[bool], results: Sequence[tuple[Result, ...]]
) -> tuple[list[Layer], list[int]]:
    used = [False] * len(layers)
    for keeping, each in zip(kept, results, strict=True):
        if keeping:
            for result in each:
                used[result.layer] = True
    for at in range(len(layers) - 1, -1, -1):  # children before parents
        if used[at] and layers[at].parent >= 0:
            used[layers[at].parent] = True
    moved: list[Layer] = []
    places = []
    for at, layer in enumerate(layers):
        places.append(len(moved))
        if used[at]:
            moved.append(Layer(layer.blob, places[layer.parent] if layer.parent >= 0 else -1))
    return moved, places


def _left_out(whole: Cache, part: Cache) -> LeftOut:
    return LeftOut(
        records=len(whole.config.records) - len(part.config.records),
        results=_results(whole) - _results(part),
        layers=len(whole.descriptors) - len(part.descriptors),
    )


def _results(cache: Cache) -> int:
    return sum([len(record.results) for record in cache.config.records])
