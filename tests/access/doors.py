"""Access control with users whose passwords are quickly looked at."""

from __future__ import annotations

from pathlib import Path

import bcrypt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cacheproxy.access.control import ControlledAccess, to_basic
from cacheproxy.access.htpasswd import Passwords
from cacheproxy.access.policy import Policy
from cacheproxy.access.tokens import SigningKey, Tokens, new_key
from cacheproxy.config import load
from cacheproxy.rules import access_policy
from cacheproxy.settings import Auth

KEY = new_key()
SERVICE = "cacheproxy"

PASSWORD = "correct-horse-battery-staple"
"""Everybody's."""

BASE = """
htpasswd_file: unused
groups: {ci: [runner]}
rules:
  - {anonymous: true, actions: [pull], repositories: ["base/*"]}
  - {groups: [ci], actions: [pull, push], repositories: ["ci/*"]}
  - {users: [reader], actions: [pull], repositories: ["ci/*"]}
  - {users: [pusher], actions: [push], repositories: ["ci/*"]}
  - {users: [cleaner], actions: [delete], repositories: ["ci/*"]}
  - {users: [scraper], actions: [metrics]}
  - {users: [admin], actions: [pull, push, delete], repositories: ["*"]}
"""
NAMESPACES = "[{name: base, repositories: [base/*]}, {name: ci, repositories: [ci/*]}]"
"""With these all repositories of a namespace have the same readers."""

USERS = ("runner", "reader", "pusher", "cleaner", "scraper", "stranger", "admin")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


_HASH = hashed(PASSWORD)


def htpasswd(*users: str) -> str:
    """A file with these users, whose password is `PASSWORD`."""
    return "".join(f"{user}:{_HASH}\n" for user in users)


def signing_key(path: Path) -> str:
    """Write a key for tokens; returns where it is."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(path)


def auth_of(text: str) -> Auth:
    """The settings of `auth`, written as in a file."""
    import yaml

    flags = {
        f"auth.{name}": yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
        if isinstance(value, list | dict)
        else str(value)
        for name, value in yaml.safe_load(text).items()
    }
    return load(flags, {"HOME": "/"}).auth


def policy(text: str = BASE) -> Policy:
    return access_policy(auth_of(text))


def tokens(clock: Clock, key: SigningKey = KEY, service: str = SERVICE) -> Tokens:
    return Tokens(key, service, 300, clock)


def door(clock: Clock | None = None, text: str = BASE) -> ControlledAccess:
    """What lets `USERS` in by the rules."""
    clock = clock or Clock()
    return ControlledAccess(Passwords.parse(htpasswd(*USERS)), policy(text), tokens(clock), clock)


def basic(user: str, password: str = PASSWORD) -> str:
    return to_basic(user, password)
