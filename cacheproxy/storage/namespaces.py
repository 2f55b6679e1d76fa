"""Which namespace a repository is in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cacheproxy.oci.names import Names
from cacheproxy.oci.reference import EVERYTHING, Pattern, Repository
from cacheproxy.storage.layout import Namespace


@dataclass(frozen=True, slots=True)
class Namespaces:
    """That of the first rule of which a pattern matches, else the default one."""

    rules: Sequence[tuple[Namespace, Sequence[Pattern]]] = ()

    def of(self, repository: Repository) -> Namespace:
        for namespace, patterns in self.rules:
            if any(pattern.matches(repository) for pattern in patterns):
                return namespace
        return Namespace()

    def __iter__(self) -> Iterator[Namespace]:
        """All of them, the default one last."""
        for namespace, _ in self.rules:
            yield namespace
        yield Namespace()

    def names(self) -> Iterator[tuple[Namespace, Names]]:
        """All of them, with the names of their repositories."""
        earlier: tuple[Pattern, ...] = ()
        for namespace, patterns in (*self.rules, (Namespace(), [EVERYTHING])):
            yield namespace, Names(tuple(patterns), earlier)
            earlier += tuple(patterns)
