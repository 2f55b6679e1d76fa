"""The one question every request asks before anything is done for it."""

from enum import Enum
from typing import Protocol

from cacheproxy.oci.reference import Repository


class Action(Enum):
    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


class Policy(Protocol):
    async def authorize(
        self, credentials: str | None, action: Action, repository: Repository | None
    ) -> None:
        """Return if whoever sent `credentials` (an Authorization header) may do this.

        `repository` is None for what concerns the registry as a whole: its version and catalog.

        Raises:
            Unauthorized: with other credentials it might be allowed.
            Denied: it is not.
        """


class AllowAll:
    """The policy of a registry without access control."""

    async def authorize(
        self, credentials: str | None, action: Action, repository: Repository | None
    ) -> None:
        return
