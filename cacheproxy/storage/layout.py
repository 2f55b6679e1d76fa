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
    <namespace>/uploads/<id>/<offset>                       a chunk of an upload session
    <namespace>/uploads/<id>/last-<algorithm>-<hex>         what completes it to this digest
    <namespace>/uploads/<id>/closed                         the session is over

A component of a repository's name cannot begin with `_`, so no repository collides with these.
A blob belongs to the namespace, manifests and tags belong to a repository. There is one namespace
for now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cacheproxy.oci.digest import Digest
from cacheproxy.oci.reference import Repository, Tag

FORMAT_KEY: Final = "format"
SECRET_KEY: Final = "secret"

_MANIFESTS: Final = "_manifests/"


@dataclass(frozen=True, slots=True)
class Namespace:
    """The keys of a set of repositories that share their blobs."""

    name: str = "default"

    def blob(self, digest: Digest) -> str:
        return f"{self.name}/blobs/{digest.algorithm}/{digest[7:9]}/{digest.hex}"

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

    def referrers(self, repository: Repository, subject: Digest) -> str:
        return (
            f"{self.name}/repositories/{repository}/_referrers/{subject.algorithm}-{subject.hex}/"
        )

    def referrer(self, repository: Repository, subject: Digest, digest: Digest) -> str:
        return f"{self.referrers(repository, subject)}{digest.algorithm}-{digest.hex}"

    def deleted(self, repository: Repository) -> str:
        return f"{self.name}/deleted/{repository.replace('/', ':')}"

    def all_deleted(self) -> str:
        """The prefix of the records of all repositories that hide blobs."""
        return f"{self.name}/deleted/"

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
