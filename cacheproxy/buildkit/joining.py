"""BuildKit's rule for joining records, applied until nothing is left to join.

On import BuildKit joins a record with those of equal digest that share with it an alternative at
every input (the inputs of the shorter one, when they differ in number). It does so record by
record, in an order that depends on luck, and does not see to it that the outcome has no cycles; a
cycle makes it recurse without end. Where no two records are left that the rule would join, import
changes nothing, and what is acyclic as written stays so.

The rule is monotone (joining makes more alternatives equal, never fewer), so the finest partition
that it leaves alone exists, and is reached by joining in any order. Where records of one digest
differ in their number of inputs, which no BuildKit exports, that takes a rule that joins a little
more: what was joined is as short as the shortest that it was joined from.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import Final

from cacheproxy.buildkit.union import SELECTOR_BITS, Graph, Inputs, sources_of

_SELECTOR: Final = (1 << SELECTOR_BITS) - 1
_INPUT_BITS: Final = 20


class _Having:
    """Of the records of one digest, which have an alternative at an input.

    Mostly it is one, so a set is made only for several.
    """

    def __init__(self) -> None:
        self._nodes: dict[int, int | set[int]] = {}

    def add(self, at: int, alternative: int, node: int) -> None:
        key = alternative << _INPUT_BITS | at
        known = self._nodes.setdefault(key, node)
        if isinstance(known, set):
            known.add(node)
        elif known != node:
            self._nodes[key] = {known, node}

    def remove(self, at: int, alternative: int, node: int) -> None:
        key = alternative << _INPUT_BITS | at
        known = self._nodes[key]
        if isinstance(known, set):
            known.discard(node)
        else:
            del self._nodes[key]

    def others(self, at: int, alternative: int, node: int) -> Collection[int]:
        """Those that have it; none if that is but `node`."""
        known = self._nodes[alternative << _INPUT_BITS | at]
        if isinstance(known, set):
            return known
        return () if known == node else (known,)

    def change(self, node: int, before: Inputs, after: Inputs) -> None:
        """Note that the inputs of `node` have changed."""
        for at in range(max(len(before), len(after))):
            had = set(before[at]) if at < len(before) else set()
            has = set(after[at]) if at < len(after) else set()
            for each in had - has:
                self.remove(at, each, node)
            for each in has - had:
                self.add(at, each, node)


class Joining:
    """The closure of a graph under BuildKit's rule, computed when it is made.

    `joined` counts the nodes that were joined into others. Results move with them.
    """

    def __init__(self, graph: Graph) -> None:
        self.joined = 0
        self._graph = graph
        self._into = list(range(len(graph.digests)))
        self._arities = _arities_of_rivals(graph)
        # only records that have a rival, another record of their digest, can ever be joined
        self._inputs = {
            node: inputs
            for node, inputs in enumerate(graph.inputs)
            if inputs and graph.digests[node] in self._arities
        }
        self._shortest = {node: len(inputs) for node, inputs in self._inputs.items()}
        self._having = {digest: _Having() for digest in self._arities}
        for node, inputs in self._inputs.items():
            having = self._having[graph.digests[node]]
            for at, alternatives in enumerate(inputs):
                for each in alternatives:
                    having.add(at, each, node)
        self._users: dict[int, list[int]] | None = None
        self._run()

    def remaining(self, node: int) -> int:
        """The node that `node` was joined into, itself if none."""
        into = self._into
        while into[node] != node:
            into[node] = into[into[node]]
            node = into[node]
        return node

    def inputs(self) -> dict[int, Inputs]:
        """The inputs of the nodes that remain, in terms of nodes that remain."""
        inputs = dict(enumerate(self._graph.inputs))
        if not self.joined:
            return inputs
        into, remaining = self._into, self.remaining
        for node, each in list(inputs.items()):
            if into[node] != node:
                del inputs[node]
            elif node in self._inputs:
                inputs[node] = self._inputs[node]
            elif any(into[source] != source for source in sources_of(each)):
                inputs[node] = _moved(each, {at: remaining(at) for at in sources_of(each)})
        return inputs

    def _run(self) -> None:
        changed = set(self._inputs)
        while changed:
            # from the roots up, so that most records are looked at when their sources are final
            for node in sorted(changed):
                changed.discard(node)
                if self._into[node] == node and (alike := self._alike(node)):
                    self._join({node, *alike}, changed)

    def _alike(self, node: int) -> set[int]:
        inputs, shortest = self._inputs[node], self._shortest
        found: set[int] = set()
        for arity in self._arities[self._graph.digests[node]]:
            if arity > shortest[node]:
                break
            sharing = self._sharing(node, inputs[:arity])
            if arity < shortest[node]:  # a longer one must share more
                sharing = {other for other in sharing if shortest[other] == arity}
            found |= sharing
        return found

    def _sharing(self, node: int, inputs: Inputs) -> set[int]:
        """The other rivals that have one of the alternatives at every input.

        Begins with the rarest input: thousands of builds may copy into one base image, but from
        thousands of different contexts.
        """
        having = self._having[self._graph.digests[node]]
        rows = []
        for at, alternatives in enumerate(inputs):
            row = [others for each in alternatives if (others := having.others(at, each, node))]
            if not row:
                return set()
            rows.append(row)
        rows.sort(key=lambda row: sum([len(each) for each in row]))
        found = set().union(*rows[0])
        for row in rows[1:]:
            found = {other for other in found if any(other in each for each in row)}
        found.discard(node)
        return found

    def _join(self, nodes: set[int], changed: set[int]) -> None:
        """Make one of `nodes`; adds to `changed` what must be looked at for that."""
        users = self._users = self._users or self._all_users()
        # each alternative moves at most log n times if the heaviest stays
        one = max(nodes, key=lambda node: (self._weight(node, users), node))
        others = nodes - {one}
        self.joined += len(others)
        self._shortest[one] = min([self._shortest[node] for node in nodes])
        for other in others:
            self._into[other] = one
            if other in self._graph.best:
                self._graph.offer(one, self._graph.best.pop(other))
        self._take_inputs(one, others)
        touched = {self.remaining(user) for other in others for user in users.pop(other, ())}
        moves = dict.fromkeys(others, one)
        for user in touched:
            before, after = self._inputs[user], _moved(self._inputs[user], moves)
            self._having[self._graph.digests[user]].change(user, before, after)
            self._inputs[user] = after
        users[one].extend(touched)
        changed |= touched
        changed.add(one)

    def _all_users(self) -> dict[int, list[int]]:
        """For each node the rivals that have it as an alternative."""
        users: dict[int, list[int]] = defaultdict(list)
        for node, inputs in self._inputs.items():
            for source in sources_of(inputs):
                users[source].append(node)
        return users

    def _weight(self, node: int, users: dict[int, list[int]]) -> int:
        return len(users.get(node, ())) + sum(map(len, self._inputs[node]))

    def _take_inputs(self, one: int, others: set[int]) -> None:
        having = self._having[self._graph.digests[one]]
        mine = self._inputs[one]
        together = [set(alternatives) for alternatives in mine]
        for other in others:
            its = self._inputs.pop(other)
            having.change(other, its, ())
            together += [set[int]() for _ in its[len(together) :]]
            for at, alternatives in enumerate(its):
                together[at].update(alternatives)
        self._inputs[one] = tuple([tuple(sorted(each)) for each in together])
        having.change(one, mine, self._inputs[one])


def _arities_of_rivals(graph: Graph) -> dict[str, list[int]]:
    """The digests that several records with inputs have, and their numbers of inputs."""
    arities: dict[str, set[int]] = {}
    rivals: set[str] = set()
    for digest, inputs in zip(graph.digests, graph.inputs, strict=True):
        if inputs:
            if digest in arities:
                rivals.add(digest)
            arities.setdefault(digest, set()).add(len(inputs))
    return {digest: sorted(arities[digest]) for digest in rivals}


def _moved(inputs: Inputs, into: dict[int, int]) -> Inputs:
    """Inputs in which each alternative of a node in `into` is one of what that node became."""
    return tuple(
        [
            tuple(
                sorted(
                    {
                        into.get(each >> SELECTOR_BITS, each >> SELECTOR_BITS) << SELECTOR_BITS
                        | each & _SELECTOR
                        for each in alternatives
                    }
                )
            )
            for alternatives in inputs
        ]
    )
