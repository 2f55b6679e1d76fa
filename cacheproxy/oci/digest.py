"""Digests: the names of content (image-spec, descriptor.md, "Digests")."""

import hashlib
import re
from typing import Final

from cacheproxy.errors import DigestInvalid

_HASHES: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}

_SUPPORTED: Final = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")

# image-spec: algorithm ::= component (separator component)*, encoded ::= [a-zA-Z0-9=_-]+
_GRAMMAR: Final = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")

CANONICAL: Final = "sha256"


class Digest(str):
    """`<algorithm>:<hex>` of a supported algorithm: sha256 or sha512, both lower case."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Check `text`.

        Raises:
            DigestInvalid: it is no digest, or one of an algorithm that is not supported.
        """
        if _SUPPORTED.fullmatch(text):
            return cls(text)
        if _GRAMMAR.fullmatch(text) and text.partition(":")[0] not in _HASHES:
            raise DigestInvalid(f"the algorithm of {text!r:.100} is neither sha256 nor sha512")
        raise DigestInvalid(f"{text!r:.100} is not a digest")

    @classmethod
    def maybe(cls, text: str) -> "Digest | None":
        """The digest; None for what can name nothing that is stored here."""
        return cls(text) if _SUPPORTED.fullmatch(text) else None

    @property
    def algorithm(self) -> str:
        return self[:6]  # both supported names have six letters

    @property
    def hex(self) -> str:
        return self[7:]


class Hasher:
    """Digests and counts bytes as they pass."""

    def __init__(self, algorithm: str = CANONICAL) -> None:
        if algorithm not in _HASHES:
            raise DigestInvalid(f"algorithm {algorithm!r:.100} is neither sha256 nor sha512")
        self.algorithm = algorithm
        self.size = 0
        self._hash = _HASHES[algorithm]()

    def update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        return Digest(f"{self.algorithm}:{self._hash.hexdigest()}")


def digest_of(data: bytes, algorithm: str = CANONICAL) -> Digest:
    """The digest of `data`.

    Raises:
        DigestInvalid: the algorithm is not supported.
    """
    hasher = Hasher(algorithm)
    hasher.update(data)
    return hasher.digest()
