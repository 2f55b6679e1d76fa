"""Who is asking."""

from dataclasses import dataclass
from typing import Final

from cacheproxy.access.scope import CATALOG, Grant
from cacheproxy.oci.reference import Repository


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, or with None somebody unknown; `grants` is what a token is limited to, if by one.

    What a token grants is an upper bound only: the policy is asked as well, at every request.
    """

    user: str | None = None
    grants: frozenset[Grant] | None = None

    def covers(self, action: str, repository: Repository | None) -> bool:
        """Whether the credentials are meant for this at all."""
        return self.grants is None or (repository, action) in self.grants

    @property
    def covers_catalog(self) -> bool:
        return self.grants is None or CATALOG in self.grants

    def __str__(self) -> str:
        return "anonymous" if self.user is None else f"user {self.user}"


NOBODY: Final = Identity()
"""Who has sent no credentials."""
