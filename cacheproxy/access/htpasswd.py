"""Passwords as `htpasswd -B` writes them, and nothing weaker."""

import re
from collections.abc import Mapping
from typing import Final

import bcrypt

_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_COSTS: Final = range(4, 18)  # one of 18 takes half a minute


class AccessInvalid(Exception):
    """What access is to be controlled with cannot be used, in one sentence."""


class Passwords:
    """The users and the hashes of their passwords."""

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        self._hashes = dict(hashes)
        # Who is unknown is refused as slowly as who is known.
        cost = max((each[4:6] for each in hashes.values()), default=b"10")
        self._nobody = b"$2b$" + cost + b"$" + b"." * 53

    @classmethod
    def parse(cls, text: str) -> "Passwords":
        """Read a file of `user:hash` lines. Raises AccessInvalid, without a word of the hash."""
        hashes: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, colon, told = line.strip().partition(":")
            match = _HASH.fullmatch(told)
            if not (user and colon and match) or int(match[1]) not in _COSTS:
                raise AccessInvalid(f"line {number} is not of `htpasswd -B`: user:$2y$...")
            if user in hashes or user in ("anonymous", "*"):
                raise AccessInvalid(f"line {number} names a user that is named already")
            hashes[user] = told.encode()
        return cls(hashes)

    def __contains__(self, user: str) -> bool:
        return user in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def fits(self, user: str, password: str) -> bool:
        """Whether it is the user's password. Takes a tenth of a second: call it in a thread."""
        stored = self._hashes.get(user)
        try:
            fits = bcrypt.checkpw(password.encode(), stored or self._nobody)
        except ValueError:  # longer than bcrypt's 72 bytes; nobody has such a one
            return False
        return fits and stored is not None
