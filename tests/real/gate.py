"""A proxy that asks for a login, so that clients send the credentials they have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.nginx import Nginx

_SETTINGS = """\
access_log off;
auth_basic registry;
auth_basic_user_file {folder}/users;
"""


@dataclass(frozen=True, slots=True)
class Gate:
    """A running nginx that passes every request with the right login on, credentials and all."""

    host: str

    @classmethod
    @contextmanager
    def running(cls, folder: Path, host: str, user: str, password: str) -> Iterator[Gate]:
        """Guard the registry `host`; the gate keeps its files in `folder`."""
        (folder / "users").write_text(f"{user}:{{PLAIN}}{password}\n")
        with Nginx.running(folder, host, _SETTINGS.format(folder=folder)) as nginx:
            yield cls(nginx.host)
