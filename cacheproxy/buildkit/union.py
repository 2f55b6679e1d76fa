"""Caches side by side in one graph, where records that are written alike are one already."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from cacheproxy.buildkit.cache import Cache, LayerDescriptor, Record, Result

SELECTOR_BITS: Final = 24
"""An alternative in the graph is one int: its node, and in these low bits the selector's number.

The many sets and keys of alternatives are small and quick that way.
"""

Inputs = tuple[tuple[int, ...], ...]
"""The inputs of a node: the alternatives of each, sorted."""

_GONE: Final = -2


def sources_of(inputs: Inputs) -> Iterator[int]:
    """The nodes of all alternatives, with repetitions."""
    for alternatives in inputs:
        for each in alternatives:
            yield each >> SELECTOR_BITS


class Chains:
    """Chains of layers, each once; a chain is known by a number greater than its parent's."""

    def __init__(self) -> None:
        self.links: list[tuple[int, str]] = []  # parent, blob
        self._known: dict[tuple[int, str], int] = {}

    def add(self, parent: int, blob: str) -> int:
        link = (parent, blob)
        chain = self._known.setdefault(link, len(self.links))
        if chain == len(self.links):
            self.links.append(link)
        return chain

    def blobs(self, chain: int) -> tuple[str, ...]:
        """The blobs of a chain, root first."""
        blobs = []
        while chain >= 0:
            chain, blob = self.links[chain]
            blobs.append(blob)
        return tuple(reversed(blobs))


class Graph:
    """Records of many caches as numbered nodes; the sources of a node have lower numbers.

    `best` has the best result of each node that has one: when it was created, and its chain.
    """

    def __init__(self) -> None:
        self.digests: list[str] = []
        self.inputs: list[Inputs] = []
        self.best: dict[int, tuple[int, int]] = {}
        self.chains = Chains()
        self.selectors: list[str] = []
        self._selector: dict[str, int] = {}
        self._known: dict[tuple[str, Inputs], int] = {}

    def add(self, cache: Cache, usable: Mapping[str, LayerDescriptor], latest: int) -> list[int]:
        """Add what of `cache` is alive, given the usable layers; created at `latest` at the latest.

        Returns for each record its node, or -1.
        """
        chains = self._add_layers(cache, usable)
        records = cache.config.records
        results = [_usable(record.results, chains) for record in records]
        alive = living(records, [bool(each) for each in results])
        nodes: list[int] = []
        known, digests = self._known, self.digests
        for record, living_now, each in zip(records, alive, results, strict=True):
            if not living_now:
                nodes.append(-1)
                continue
            inputs = self._inputs(record, nodes)
            node = known.setdefault((record.digest, inputs), len(digests))
            if node == len(digests):
                digests.append(record.digest)
                self.inputs.append(inputs)
            nodes.append(node)
            for result in each:
                self.offer(node, (min(result.created_at, latest), chains[result.layer]))
        return nodes

    def offer(self, node: int, result: tuple[int, int]) -> None:
        """Make `result` the node's if it is the best so far: the newest, then the least chain."""
        best = self.best.get(node)
        if best is None or result[0] > best[0]:
            self.best[node] = result
        elif result[0] == best[0] and result[1] != best[1]:
            chains = self.chains
            if chains.blobs(result[1]) < chains.blobs(best[1]):
                self.best[node] = result

    def _add_layers(self, cache: Cache, usable: Mapping[str, LayerDescriptor]) -> list[int]:
        chains: list[int] = []
        for layer in cache.config.layers:
            below = -1 if layer.parent < 0 else chains[layer.parent]
            gone = below == _GONE or layer.blob not in usable
            chains.append(_GONE if gone else self.chains.add(below, layer.blob))
        return chains

    def _inputs(self, record: Record, nodes: Sequence[int]) -> Inputs:
        inputs: list[tuple[int, ...]] = []
        for alternatives in record.inputs:
            if len(alternatives) == 1:
                one = alternatives[0]
                inputs.append((nodes[one.record] << SELECTOR_BITS | self._number(one.selector),))
                continue
            distinct = {
                nodes[one.record] << SELECTOR_BITS | self._number(one.selector)
                for one in alternatives
            }
            inputs.append(tuple(sorted(distinct)))
        return tuple(inputs)

    def _number(self, selector: str) -> int:
        number = self._selector.setdefault(selector, len(self.selectors))
        if number == len(self.selectors):
            self.selectors.append(selector)
        return number


def _usable(results: Iterable[Result], chains: Sequence[int]) -> tuple[Result, ...]:
    return tuple([result for result in results if chains[result.layer] != _GONE])


def living(records: Sequence[Record], with_result: Sequence[bool]) -> list[bool]:
    """Which records have a result, or something made from them has."""
    alive = list(with_result)
    for at in range(len(records) - 1, -1, -1):  # users before sources
        if alive[at]:
            for alternatives in records[at].inputs:
                for one in alternatives:
                    alive[one.record] = True
    return alive
