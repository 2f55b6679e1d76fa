"""The image of the Dockerfile, built by BuildKit, and a container of it, run by runc."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.real.build import Build
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.real.home import Home
from tests.real.process import Daemon, require, require_root

_ROOT = Path(__file__).parent.parent.parent
_PASSED_ON = {"cert", "extra-index-url", "index-url", "timeout", "trusted-host"}


def build_image(buildkit: BuildKit, base: str, name: str, scratch: Path) -> Build:
    """Build the Dockerfile on the image `base`, and push the result under `name`."""
    config = scratch / "pip.conf"
    config.write_text(_pip_config())
    return buildkit.build(
        _ROOT,
        f"--opt=build-arg:PYTHON={base}",
        f"--secret=id=pip,src={config}",
        f"--output=type=image,name={name},push=true",
        seconds=500,
    )


def _pip_config() -> str:
    """Where packages come from on this machine, as a file of pip's settings."""
    command = (sys.executable, "-m", "pip", "config", "list")
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings: dict[str, str] = {}
    for line in listing.splitlines():  # what is in force comes first
        key, _, value = line.partition("=")
        settings.setdefault(key.rpartition(".")[2], " ".join(shlex.split(value)))
    lines = [f"{key} = {value}" for key, value in settings.items() if key in _PASSED_ON]
    return "\n".join(["[global]", *lines, ""])


class UnpackedImage:
    """An image of a registry, unpacked."""

    def __init__(self, name: str, crane: Crane, folder: Path) -> None:
        self.settings: dict[str, Any] = json.loads(crane.run("config", name))["config"]
        """What it says of how it is run."""
        self.root = folder / "root"
        crane.run("export", name, str(folder / "root.tar"))
        with tarfile.open(folder / "root.tar") as tar:
            tar.extractall(self.root, filter="fully_trusted")

    @property
    def user(self) -> tuple[int, int]:
        user, _, group = self.settings["User"].partition(":")
        return int(user), int(group)

    def bundle(self, folder: Path, variables: Mapping[str, str]) -> dict[str, Any]:
        """The runtime specification of a container without any privilege.

        Its root cannot be written, and `folder` is its volume.
        """
        (volume,) = self.settings["Volumes"]
        user, group = self.user
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.root), "readonly": True},
            "process": {
                "args": [*self.settings["Entrypoint"], *self.settings["Cmd"]],
                "env": [*self.settings["Env"], *_pairs(variables)],
                "cwd": self.settings["WorkingDir"],
                "user": {"uid": user, "gid": group},
                "noNewPrivileges": True,
            },
            "mounts": [
                {"type": "proc", "source": "proc", "destination": "/proc"},
                {"type": "tmpfs", "source": "tmpfs", "destination": "/dev"},
                {"type": "tmpfs", "source": "tmpfs", "destination": "/tmp"},
                {"source": str(folder), "destination": volume, "options": ["bind"]},
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]},
        }


class Container:
    """A running container, in the machine's network."""

    def __init__(self, image: UnpackedImage, daemon: Daemon, home: Home, name: str) -> None:
        self.daemon = daemon
        self._image = image
        self._home = home
        self._name = name

    @classmethod
    @contextmanager
    def running(cls, image: UnpackedImage, folder: Path, **variables: str) -> Iterator[Container]:
        """Run `image` as it says, with these variables besides; its volume is `folder`/data."""
        require_root()
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        os.chown(data, *image.user)
        (folder / "config.json").write_text(json.dumps(image.bundle(data, variables)))
        home, name = Home(folder / "home"), f"cacheproxy-{uuid.uuid4().hex[:12]}"
        command = (str(require("runc")), "run", f"--bundle={folder}", name)
        log = folder / "container.log"
        try:
            with Daemon.running(command, environment=home.environment, log=log) as daemon:
                yield cls(image, daemon, home, name)
        finally:
            home.run("runc", "delete", "--force", name)

    def exec(self, *command: str, **variables: str) -> str:
        """Run `command` in the container as its user, and return what it prints."""
        options = [f"--env={pair}" for pair in _pairs(variables)]
        return self._home.run("runc", "exec", *options, self._name, *command)

    def check_health(self, **variables: str) -> None:
        """Do what the image says that shows whether it works; `variables` are for that alone."""
        kind, *command = self._image.settings["Healthcheck"]["Test"]
        assert kind == "CMD"
        self.exec(*command, **variables)

    def stop(self) -> None:
        """Ask the container's first process to end."""
        self._home.run("runc", "kill", self._name, self._image.settings["StopSignal"])


def _pairs(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]
