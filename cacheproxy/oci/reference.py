"""Names: repositories, tags and references (distribution-spec, "Pulling manifests")."""

import re
from fnmatch import fnmatchcase
from typing import Final

from cacheproxy.errors import ManifestInvalid, NameInvalid
from cacheproxy.oci.digest import Digest

# distribution-spec: <name> MUST match this expression.
_NAME: Final = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
# distribution-spec: <reference> as a tag MUST match this expression.
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# The spec notes that many clients allow 255 characters for host and name together.
NAME_LENGTH: Final = 255


class Repository(str):
    """The name of a repository, such as `ci/app`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """Check `text`. Raises NameInvalid."""
        if len(text) > NAME_LENGTH:
            raise NameInvalid(f"a repository name has at most {NAME_LENGTH} characters")
        if not _NAME.fullmatch(text):
            raise NameInvalid(f"{text!r} is not a repository name")
        return cls(text)


class Tag(str):
    """The name of a tag, such as `latest`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Tag":
        """Check `text`. Raises ManifestInvalid, the spec having no code for a bad tag."""
        if not _TAG.fullmatch(text):
            raise ManifestInvalid(f"{text!r:.200} is not a tag")
        return cls(text)


class Pattern(str):
    """Names of repositories: `*` stands for any characters, also slashes."""

    __slots__ = ()

    def matches(self, repository: Repository) -> bool:
        return fnmatchcase(repository, self)


EVERYTHING: Final = Pattern("*")


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """A digest if `text` has a colon, which no tag can have, else a tag.

    Raises:
        DigestInvalid, ManifestInvalid: it is neither.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)
