"""What a token is asked for, and grants: `repository:ci/app:pull,push` (docker's token spec)."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from cacheproxy.errors import NameInvalid, RequestInvalid
from cacheproxy.oci.reference import Repository

Grant = tuple[str, str]
"""A repository and an action."""

CATALOG: Final[Grant] = ("registry:catalog", "*")
"""The grant of the catalog; no repository has a colon in its name."""

ACTIONS: Final = ("pull", "push", "delete")

_MOST: Final = 60
"""As many as clients merge into one token, and fit the header that brings it back."""


def parse_scopes(texts: Iterable[str]) -> frozenset[Grant]:
    """What is asked for; each text may hold several scopes. What is unknown here is left out.

    Raises:
        RequestInvalid: it is too much.
    """
    grants: set[Grant] = set()
    for scope in " ".join(texts).split():
        grants.update(_grants(scope))
        if len(grants) > _MOST * len(ACTIONS):
            raise RequestInvalid(f"a token is for at most {_MOST} repositories")
    return frozenset(grants)


def scope_of(action: str, repository: str) -> str:
    """The scope that a client lacks; who pushes looks first at what is there."""
    return f"repository:{repository}:{'pull,push' if action == 'push' else action}"


def to_claim(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """Grants as the `access` claim of a token."""
    actions: dict[str, list[str]] = {}
    for name, action in sorted(grants):
        actions.setdefault(name, []).append(action)
    return [
        {"type": "registry", "name": "catalog", "actions": ["*"]}
        if name == CATALOG[0]
        else {"type": "repository", "name": name, "actions": each}
        for name, each in actions.items()
    ]


def from_claim(claim: Iterable[dict[str, Any]]) -> frozenset[Grant]:
    """The grants that `to_claim` was given."""
    return frozenset(
        CATALOG if entry["type"] == "registry" else (entry["name"], action)
        for entry in claim
        for action in entry["actions"]
    )


def _grants(scope: str) -> Iterator[Grant]:
    kind, _, rest = scope.partition(":")
    name, _, told = rest.rpartition(":")
    if (kind, name) == ("registry", "catalog"):
        yield CATALOG
    if kind != "repository":
        return
    try:
        repository = Repository.parse(name)
    except NameInvalid:
        return
    actions = told.split(",")
    for action in ACTIONS:
        if action in actions or "*" in actions:
            yield str(repository), action
