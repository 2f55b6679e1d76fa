"""Cutting the cycles that joining may have made, the same way whatever the order of the sources.

A record can be reached once each of its inputs has an alternative that can be reached; the round in
which that is so first is its rank. Inside a knot of records that lead to each other, alternatives
are cut that do not have a lower rank than the record. What is left has no cycle, since ranks rise
along it, and each record still has an alternative at each input, since its rank came from one.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from cacheproxy.buildkit.union import SELECTOR_BITS, Inputs, sources_of


def levels_in_order(inputs: Sequence[Inputs]) -> list[list[int]]:
    """The nodes by their distance from the farthest root, if sources have lower numbers."""
    depths: list[int] = []
    found: list[list[int]] = []
    for node, each in enumerate(inputs):
        depth = 1 + max([depths[source] for source in sources_of(each)], default=-1)
        depths.append(depth)
        if depth == len(found):
            found.append([])
        found[depth].append(node)
    return found


def levels(inputs: dict[int, Inputs]) -> list[list[int]]:
    """The nodes by their distance from the farthest root, without those on or behind a cycle."""
    users: dict[int, list[int]] = defaultdict(list)
    missing = {}
    for node, each in inputs.items():
        missing[node] = sum(map(len, each))
        for source in sources_of(each):
            users[source].append(node)
    found = []
    level = [node for node, count in missing.items() if not count]
    while level:
        found.append(level)
        following = []
        for node in level:
            for user in users.get(node, ()):
                missing[user] -= 1
                if not missing[user]:
                    following.append(user)
        level = following
    return found


def cut_cycles(inputs: dict[int, Inputs], tangled: Iterable[int]) -> int:
    """Remove alternatives from `inputs` until it has no cycles; returns how many.

    `tangled` are the nodes on or behind a cycle. Records that no root leads to are removed, and
    their alternatives counted. Such are only where records of one digest differ in their number of
    inputs.
    """
    ranks = _ranks(inputs)
    cut = _remove_unreachable(inputs, ranks)
    for knot in _knots({node: inputs[node] for node in tangled if node in ranks}):
        for node in knot:
            backwards = {
                source
                for source in sources_of(inputs[node])
                if source in knot and ranks[source] >= ranks[node]
            }
            cut += _remove(inputs, node, backwards)
    return cut


def _remove(inputs: dict[int, Inputs], node: int, sources: set[int]) -> int:
    """Remove the alternatives of `node` that are of `sources`; returns how many."""
    if not sources:
        return 0
    before = inputs[node]
    inputs[node] = tuple(
        [
            tuple([each for each in alternatives if each >> SELECTOR_BITS not in sources])
            for alternatives in before
        ]
    )
    return sum(map(len, before)) - sum(map(len, inputs[node]))


def _ranks(inputs: dict[int, Inputs]) -> dict[int, int]:
    """The rank of each node that can be reached."""
    users: dict[int, list[tuple[int, int]]] = defaultdict(list)
    missing = {}
    for node, each in inputs.items():
        missing[node] = len(each)
        for at, alternatives in enumerate(each):
            for alternative in alternatives:
                users[alternative >> SELECTOR_BITS].append((node, at))
    ranks: dict[int, int] = {}
    met: set[tuple[int, int]] = set()
    reached = [node for node, count in missing.items() if not count]
    rank = 0
    while reached:
        ranks.update(dict.fromkeys(reached, rank))
        rank += 1
        later = []
        for node in reached:
            for use in users.get(node, ()):
                if use not in met:
                    met.add(use)
                    missing[use[0]] -= 1
                    if not missing[use[0]]:
                        later.append(use[0])
        reached = later
    return ranks


def _remove_unreachable(inputs: dict[int, Inputs], ranks: dict[int, int]) -> int:
    unreachable = inputs.keys() - ranks.keys()
    if not unreachable:
        return 0
    removed = sum([len(each) for node in unreachable for each in inputs.pop(node)])
    for node, each in list(inputs.items()):
        removed += _remove(inputs, node, unreachable.intersection(sources_of(each)))
    return removed


def _knots(inputs: dict[int, Inputs]) -> list[set[int]]:
    """The strongly connected components (Kosaraju's algorithm, without recursion)."""
    sources = {
        node: [source for source in sources_of(each) if source in inputs]
        for node, each in inputs.items()
    }
    users: dict[int, list[int]] = {node: [] for node in inputs}
    for node, each in sources.items():
        for source in each:
            users[source].append(node)
    left = set(inputs)
    finished = [node for root in inputs for node in _explore(root, sources, left)]
    left = set(inputs)
    return [knot for node in reversed(finished) if (knot := set(_explore(node, users, left)))]


def _explore(root: int, following: dict[int, list[int]], left: set[int]) -> list[int]:
    """Take what can be reached from `root` out of `left`; in the order of depth-first exits."""
    if root not in left:
        return []
    left.discard(root)
    finished = []
    path = [(root, iter(following[root]))]
    while path:
        node, ahead = path[-1]
        for one in ahead:
            if one in left:
                left.discard(one)
                path.append((one, iter(following[one])))
                break
        else:
            finished.append(node)
            path.pop()
    return finished
