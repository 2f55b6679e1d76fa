"""Where things are: the tree of keys, and the one place that builds them.

    format                                                  the version of this layout
    secret                                                  signs the Locations of uploads
    <namespace>/blobs/<algorithm>/ab/<hex>                  bytes as pushed
    <namespace>/repositories/<name>/_manifests/<algorithm>/<hex>
                                                            bytes as pushed; metadata: media type
    <namespace>/repositories/<name>/_tags/<tag>             a record: which manifest
    <namespace>/repositories/<name>/_referrers/<algorithm>-<hex>/<algorithm>-<hex>
                                                            a record: the descriptor of a manifest
                                                            (second) whose subject is the first
    <namespace>/deleted/<name, with `:` for `/`>            a record: blobs this repository hides
    <namespace>/quarantine/<key, without the namespace>     what fsck found damaged and moved away
    <namespace>/gc/batches/<id>                             a record: what is about to be deleted
    <namespace>/gc/collector                                a record: who collects
    <namespace>/uploads/<id>/<offset>                       a chunk of an upload session
    <namespace>/uploads/<id>/last-<algorithm>-<hex>         what completes it to this digest
    <namespace>/uploads/<id>/closed                         the session is over

A component of a repository's name cannot begin with `_`, so no repository collides with these.
A blob belongs to the namespace, manifests and tags belong to a repository. Nothing is looked for
in two namespaces.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from cacheproxy.errors import NameInvalid
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag

FORMAT_KEY: Final = "format"
SECRET_KEY: Final = "secret"

_DEFAULT: Final = "default"
_MANIFESTS: Final = "_manifests/"

# The name is part of every key and, with them, of the names of files.
_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_NAME_LENGTH: Final = 63
_WORDS: Final = frozenset(
    {
        *(FORMAT_KEY, SECRET_KEY, _DEFAULT),
        *("blobs", "repositories", "deleted", "quarantine", "gc", "uploads", "usage"),
    }
)


@dataclass(frozen=True, slots=True)
class Namespace:
    """The keys of a set of repositories that share their blobs."""

    name: str = _DEFAULT

    @classmethod
    def parse(cls, text: str) -> Self:
        """One with a name of its own. Raises NameInvalid."""
        if text in _WORDS:
            raise NameInvalid(f"{text!r} is a word that the layout of the bucket has")
        if len(text) > _NAME_LENGTH or not _NAME.fullmatch(text):
            raise NameInvalid(
                f"{text!r} is not a name: at most {_NAME_LENGTH} of a-z and 0-9, with single"
                " hyphens between them"
            )
        return cls(text)

    def blob(self, digest: Digest) -> str:
        return f"{self.name}/blobs/{digest.algorithm}/{digest[7:9]}/{digest.hex}"

    def blobs(self, algorithm: str = "") -> str:
        """The prefix of all blobs, or of those with digests of one algorithm."""
        return f"{self.name}/blobs/{algorithm}/" if algorithm else f"{self.name}/blobs/"

    def blob_at(self, key: str) -> Digest | None:
        """The digest of the blob with this key; None if it is not a blob's."""
        if not key.startswith(self.blobs()):
            return None
        algorithm, _, hex_ = key.removeprefix(self.blobs()).split("/")
        return Digest(f"{algorithm}:{hex_}")

    def repositories(self, below: str = "") -> str:
        """The prefix of the repositories whose names begin with `below/`, or of all."""
        return f"{self.name}/repositories/{below}/" if below else f"{self.name}/repositories/"

    def manifests(self, repository: Repository) -> str:
        return f"{self.name}/repositories/{repository}/{_MANIFESTS}"

    def manifest(self, repository: Repository, digest: Digest) -> str:
        return f"{self.name}/repositories/{repository}/{_MANIFESTS}{digest.algorithm}/{digest.hex}"

    def tags(self, repository: Repository) -> str:
        return f"{self.name}/repositories/{repository}/_tags/"

    def tag(self, repository: Repository, tag: Tag) -> str:
        return f"{self.name}/repositories/{repository}/_tags/{tag}"

    def manifest_at(self, key: str) -> Digest | None:
        """The digest of the manifest with this key; None if it is not a manifest's."""
        head, found, tail = key.rpartition(f"/{_MANIFESTS}")
        if not found or not head.startswith(self.repositories()):
            return None
        algorithm, _, hex_ = tail.partition("/")
        return Digest(f"{algorithm}:{hex_}")

    def repository_at(self, key: str) -> Repository:
        """The repository of a manifest with this key."""
        name, _, _ = key.removeprefix(self.repositories()).rpartition(f"/{_MANIFESTS}")
        return Repository(name)

    def all_referrers(self, repository: Repository) -> str:
        """The prefix of the records of all manifests that have a subject."""
        return f"{self.name}/repositories/{repository}/_referrers/"

    def referrers(self, repository: Repository, subject: Digest) -> str:
        return f"{self.all_referrers(repository)}{subject.algorithm}-{subject.hex}/"

    def referrer(self, repository: Repository, subject: Digest, digest: Digest) -> str:
        return f"{self.referrers(repository, subject)}{digest.algorithm}-{digest.hex}"

    def deleted(self, repository: Repository) -> str:
        return f"{self.name}/deleted/{repository.replace('/', ':')}"

    def all_deleted(self) -> str:
        """The prefix of the records of all repositories that hide blobs."""
        return f"{self.name}/deleted/"

    def batches(self) -> str:
        """The prefix of the batches of objects that are about to be deleted."""
        return f"{self.name}/gc/batches/"

    def collector(self) -> str:
        return f"{self.name}/gc/collector"

    def quarantined(self, key: str) -> str:
        """Where the damaged object that was at `key` is out of everybody's way."""
        return f"{self.name}/quarantine/{key.removeprefix(self.name + '/')}"

    def uploads(self) -> str:
        return f"{self.name}/uploads/"

    def upload(self, session: str) -> str:
        return f"{self.name}/uploads/{session}/"

    def chunk(self, session: str, offset: int) -> str:
        return f"{self.name}/uploads/{session}/{offset:020d}"

    def last(self, session: str, whole: Digest) -> str:
        return f"{self.name}/uploads/{session}/last-{whole.algorithm}-{whole.hex}"

    def closed(self, session: str) -> str:
        return f"{self.name}/uploads/{session}/closed"


def last_component(key: str) -> str:
    """The name behind the last slash of a key, or of a prefix that ends in one."""
    return key.rstrip("/").rpartition("/")[2]


def is_repository(children: Sequence[str]) -> bool:
    """Whether what lies directly under a name makes it a repository: it has manifests."""
    return any(child.endswith("/" + _MANIFESTS) for child in children)
