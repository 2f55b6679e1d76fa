"""A cache that BuildKit imports: it ignores one whose config or manifest is over 1 MiB."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from cacheproxy.buildkit.cache import Cache, Config, Record, Result
from cacheproxy.buildkit.keeping import LeftOut, keep
from cacheproxy.buildkit.lineages import Lineage
from cacheproxy.buildkit.manifest import out_descriptor, write_cache
from cacheproxy.buildkit.times import format_time

IMPORT_LIMIT: Final = 1 << 20
"""BuildKit's limit for the config and for the manifest, cache/remotecache/import.go."""

_IN_VAIN: Final = 1_000_000
"""How many records and layers all lineages may look at for results that do not fit."""


def compact(
    cache: Cache,
    lineages: Sequence[Lineage] = (),
    *,
    config_limit: int = IMPORT_LIMIT,
    manifest_limit: int = IMPORT_LIMIT,
) -> tuple[Cache, LeftOut]:
    """The part of `cache` whose config and manifest are within the limits, and what is not in it.

    The lineages take turns to choose one result each, from their newest source to their oldest, in
    a source the newest result first, of equally new ones that of the least digest. A result comes
    with all its layers, and all records that lead to it, whose own results come along where they
    need no more layers: they cost next to nothing, and are what hits when the last steps of a build
    have changed. A cache that fits is returned as it is.
    """
    if _fits(cache, config_limit, manifest_limit):
        return cache, LeftOut(0, 0, 0)
    everything = frozenset(range(len(cache.config.records)))
    selection = _Selection(cache, config_limit, manifest_limit)
    turns = deque(_queue(cache, each) for each in lineages or ((everything,),))
    patience = _IN_VAIN // len(turns)
    while turns:
        queue = turns.popleft()
        if selection.choose_one(queue, patience):
            turns.append(queue)
    records = cache.config.records
    kept = [at in selection.records for at in range(len(records))]
    results = [
        record.results[:1] if at in selection.chosen else () for at, record in enumerate(records)
    ]
    return keep(cache, kept, results)


def _fits(cache: Cache, config_limit: int, manifest_limit: int) -> bool:
    records = cache.config.records
    if sum([len(record.digest) for record in records]) > config_limit:
        return False  # by far; writing it would only take time
    written = write_cache(cache)
    return len(written.config) <= config_limit and len(written.manifest) <= manifest_limit


def _queue(cache: Cache, lineage: Lineage) -> Iterator[int]:
    records = cache.config.records
    for members in lineage:
        yield from sorted(
            [at for at in members if records[at].results],
            key=lambda at: (-records[at].results[0].created_at, records[at].digest, at),
        )


class _Selection:
    """Records and layers that are chosen, and the bytes that are left for more.

    The bytes are counted as if all numbers had the most digits, and all lists a comma behind them,
    so what is written is never longer.
    """

    def __init__(self, cache: Cache, config_limit: int, manifest_limit: int) -> None:
        self.records: set[int] = set()
        self.chosen: set[int] = set()
        self._layers: set[int] = set()
        self._blobs: set[str] = set()
        self._cache = cache
        self._digits = len(str(max(len(cache.config.records), len(cache.config.layers), 10)))
        empty = write_cache(Cache(Config((), ()), {}, cache.form))
        self._config_room = config_limit - len('{"layers":[],"records":[]}')
        self._manifest_room = manifest_limit - len(empty.manifest) - len(str(config_limit))

    def choose_one(self, queue: Iterator[int], patience: int) -> bool:
        """Add the first result in `queue` for which there is room.

        False if there is none, or none was found after looking at `patience` records and layers.
        """
        for record in queue:
            if record not in self.chosen:
                looked = self._choose(record)
                if not looked:
                    return True
                patience -= looked
                if patience < 0:
                    break
        return False

    def _choose(self, at: int) -> int:
        """Add the first result of a record with all that it needs, if there is room for it.

        Returns 0, or when there is none after how many records and layers that was clear.
        """
        config = self._cache.config
        result = config.records[at].results[0]
        size = self._result_size(result)
        layers, layers_size, descriptors_size = self._new_layers(result.layer)
        size += layers_size
        if size > self._config_room or descriptors_size > self._manifest_room:
            return 1 + len(layers)
        records, records_size = self._new_records(at, self._config_room - size)
        if size + records_size > self._config_room:
            return len(records) + len(layers)
        self._config_room -= size + records_size
        self._manifest_room -= descriptors_size
        self.records |= records
        self.chosen.add(at)
        self._layers |= layers
        self._blobs.update(config.layers[layer].blob for layer in layers)
        self._choose_what_leads_to_it(records - {at})
        return 0

    def _choose_what_leads_to_it(self, new: set[int]) -> None:
        """Add the results of records that are new, where all their layers are there."""
        for at in sorted(new):
            for result in self._cache.config.records[at].results[:1]:
                size = self._result_size(result)
                if result.layer in self._layers and size <= self._config_room:
                    self._config_room -= size
                    self.chosen.add(at)

    def _result_size(self, result: Result) -> int:
        size = len('{"layer":,"createdAt":""},') + self._digits
        return size + len(format_time(result.created_at))

    def _new_layers(self, layer: int) -> tuple[set[int], int, int]:
        """The layers to add for a result in `layer`, and their bytes in config and manifest."""
        layers: set[int] = set()
        blobs: set[str] = set()
        size = described = 0
        while layer >= 0 and layer not in self._layers:
            at = self._cache.config.layers[layer]
            blob = at.blob
            layers.add(layer)
            size += len('{"blob":"","parent":},') + len(blob) + self._digits
            if blob not in self._blobs and blob not in blobs:
                blobs.add(blob)
                descriptor = out_descriptor(blob, self._cache.descriptors[blob])
                described += len(msgspec.json.encode(descriptor)) + 1
            layer = at.parent
        return layers, size, described

    def _new_records(self, at: int, room: int) -> tuple[set[int], int]:
        """The records to add for record `at`, and their bytes; not all when over `room`."""
        if at in self.records:
            return set(), 0
        records, size, found = {at}, 0, [at]
        while found and size <= room:
            record = self._cache.config.records[found.pop()]
            size += self._size(record)
            for alternatives in record.inputs:
                for one in alternatives:
                    if one.record not in self.records and one.record not in records:
                        records.add(one.record)
                        found.append(one.record)
        return records, size

    def _size(self, record: Record) -> int:
        size = len('{"digest":"","layers":[],"inputs":[]},') + len(record.digest)
        for alternatives in record.inputs:
            size += len("[],")
            for one in alternatives:
                size += len('{"link":},') + self._digits
                if one.selector:
                    size += len(',"selector":') + len(msgspec.json.encode(one.selector))
        return size
