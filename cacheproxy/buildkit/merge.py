"""The union of caches, such that BuildKit can import it: closed under its rule and without cycles.

In normal form, which is what `merge` returns, a record has at most one result, records of equal
digest share no alternative at some input, all records lead to a result and all layers belong to
one, and everything is in one order that depends on content alone. `merge` of one cache brings it
into normal form.

Merging is idempotent and does not depend on the order of the sources. It is associative as long as
unions count as received last, no alternative is cut, no layer is dropped as disputed, and records
of one digest have equally many inputs: what one merge removed may still matter to the next one, so
merge the sources, not unions.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from cacheproxy.buildkit.cache import (
    Alternative,
    Cache,
    Config,
    Form,
    Layer,
    LayerDescriptor,
    Record,
    Result,
)
from cacheproxy.buildkit.cycles import cut_cycles, levels, levels_in_order
from cacheproxy.buildkit.joining import Joining
from cacheproxy.buildkit.union import SELECTOR_BITS, Chains, Graph, Inputs, sources_of

_SELECTOR: Final = (1 << SELECTOR_BITS) - 1


class Source(msgspec.Struct, frozen=True):
    """A cache that was pushed: when it was first received (ns since 1970) and under what digest."""

    cache: Cache
    received_at: int
    digest: str = ""


class Merged(msgspec.Struct, frozen=True):
    """A union, and what was done to make it.

    `members` has for each source, in their order, its records in the union. `joined` counts
    records that BuildKit's rule joined, `cut` alternatives that would have closed a cycle,
    `disputed` the layers that were dropped because sources differ in their diffID.
    """

    cache: Cache
    members: tuple[frozenset[int], ...]
    joined: int
    cut: int
    disputed: frozenset[str]


def merge(sources: Sequence[Source], stored: Mapping[str, int] | None = None) -> Merged:
    """The union of `sources`, in normal form.

    `stored` has the sizes of the layers that exist; without it all are believed. A result is the
    newest whose layers all exist and can be used, of equally new ones that with the least digests.
    The form is index as soon as one source's is.
    """
    usable, disputed = _usable_layers(sources, stored)
    graph = Graph()
    nodes = [graph.add(each.cache, usable, each.received_at) for each in sources]
    joining = Joining(graph)
    inputs = joining.inputs()
    if joining.joined:
        by_level, cut = _untangled(graph, inputs)
    else:
        by_level, cut = levels_in_order(graph.inputs), 0
    config, places = _config(graph, inputs, by_level)
    form: Form = "index" if any(each.cache.form == "index" for each in sources) else "image"
    blobs = sorted({layer.blob for layer in config.layers})
    return Merged(
        Cache(config, {blob: usable[blob] for blob in blobs}, form),
        tuple([_members(each, joining, places) for each in nodes]),
        joining.joined,
        cut,
        disputed,
    )


def _usable_layers(
    sources: Sequence[Source], stored: Mapping[str, int] | None
) -> tuple[dict[str, LayerDescriptor], frozenset[str]]:
    """The layers that exist and have one diffID, and those that have several."""
    usable: dict[str, LayerDescriptor] = {}
    disputed = set()
    for source in sources:
        for digest, descriptor in source.cache.descriptors.items():
            if stored is not None:
                size = stored.get(digest)
                if size is None:
                    continue
                descriptor = descriptor._replace(size=size)
            known = usable.setdefault(digest, descriptor)
            if known == descriptor:
                continue
            if None not in (known.diff_id, descriptor.diff_id):
                if known.diff_id != descriptor.diff_id:
                    disputed.add(digest)
                usable[digest] = min(known, descriptor)
            elif known.diff_id is None:
                usable[digest] = descriptor
    kept = {
        digest: descriptor
        for digest, descriptor in usable.items()
        if digest not in disputed and descriptor.diff_id is not None
    }
    return kept, frozenset(disputed)


def _members(nodes: list[int], joining: Joining, places: Mapping[int, int]) -> frozenset[int]:
    remaining = joining.remaining
    found = {places.get(remaining(node), -1) for node in nodes if node >= 0}
    return frozenset(found - {-1})


def _untangled(graph: Graph, inputs: dict[int, Inputs]) -> tuple[list[list[int]], int]:
    """The nodes that lead to results, by level, and how many alternatives were cut for that."""
    found = levels(inputs)
    if sum(map(len, found)) == len(inputs):
        return found, 0
    cut = cut_cycles(inputs, inputs.keys() - {node for level in found for node in level})
    alive = set()
    ahead = [node for node in graph.best if node in inputs]
    while ahead:
        node = ahead.pop()
        if node not in alive:
            alive.add(node)
            ahead.extend(sources_of(inputs[node]))
    return levels({node: inputs[node] for node in alive}), cut


def _config(
    graph: Graph, inputs: dict[int, Inputs], by_level: Sequence[Sequence[int]]
) -> tuple[Config, dict[int, int]]:
    """The graph as a config in canonical order, and the place of each node in it."""
    results = {node: best for node, best in graph.best.items() if node in inputs}
    layers, layer_places = _layers(graph.chains, {chain for _, chain in results.values()})
    places: dict[int, int] = {}
    records: list[Record] = []
    for level in by_level:
        rows = [
            (graph.digests[node], _alternatives(graph, inputs[node], places), node)
            for node in level
        ]
        for digest, alternatives, node in sorted(rows):
            best = results.get(node)
            places[node] = len(records)
            result = () if best is None else (Result(layer_places[best[1]], best[0]),)
            records.append(Record(digest, alternatives, result))
    return Config(layers, tuple(records)), places


def _alternatives(
    graph: Graph, inputs: Inputs, places: Mapping[int, int]
) -> tuple[tuple[Alternative, ...], ...]:
    selectors = graph.selectors
    found = []
    for alternatives in inputs:
        row = [
            Alternative(selectors[each & _SELECTOR], places[each >> SELECTOR_BITS])
            for each in alternatives
        ]
        row.sort()
        found.append(tuple(row))
    return tuple(found)


def _layers(chains: Chains, wanted: set[int]) -> tuple[tuple[Layer, ...], dict[int, int]]:
    """The layers of the wanted chains in canonical order, and the place of each chain in it."""
    depths: dict[int, int] = {-1: -1}
    for chain in sorted(_with_parents(chains, wanted)):  # parents first
        depths[chain] = depths[chains.links[chain][0]] + 1
    del depths[-1]
    levels: list[list[int]] = [[] for _ in range(max(depths.values(), default=-1) + 1)]
    for chain, depth in depths.items():
        levels[depth].append(chain)
    layers: list[Layer] = []
    places = {-1: -1}
    for level in levels:
        rows = []
        for chain in level:
            parent, blob = chains.links[chain]
            rows.append((blob, places[parent], chain))
        for blob, parent, chain in sorted(rows):
            places[chain] = len(layers)
            layers.append(Layer(blob, parent))
    return tuple(layers), places


def _with_parents(chains: Chains, wanted: set[int]) -> set[int]:
    found: set[int] = set()
    for chain in wanted:
        while chain >= 0 and chain not in found:
            found.add(chain)
            chain = chains.links[chain][0]
    return found
