"""A private home folder for the programs of one test."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from tests.real.process import require, run


class Home:
    """Runs programs so that they neither read nor write the user's own files and settings."""

    def __init__(self, folder: Path, **variables: str) -> None:
        """Keep all files in `folder`; `variables` are more environment variables."""
        self.folder = folder
        self._variables = variables
        self._logins = folder / ".docker" / "config.json"
        self._logins.parent.mkdir(parents=True, exist_ok=True)
        self._logins.write_text("{}")
        self._runtime = folder / "runtime"
        self._runtime.mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of the programs."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "DOCKER_CONFIG": str(self._logins.parent),
            # Without it the containers libraries look at a login of the whole machine first.
            "XDG_RUNTIME_DIR": str(self._runtime),
            **self._variables,
        }

    def login(self, host: str, user: str, password: str) -> None:
        """Give the programs these credentials for the registry `host`, and no others."""
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._logins.write_text(json.dumps({"auths": {host: {"auth": secret}}}))

    def logout(self) -> None:
        """Take all credentials from the programs."""
        self._logins.write_text("{}")

    def run(self, binary: str, *arguments: str, seconds: float = 240) -> str:
        """Run a program and return its standard output; raise `CommandError` when it fails."""
        command = (str(require(binary)), *arguments)
        return run(command, environment=self.environment, seconds=seconds)
