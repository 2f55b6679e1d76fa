"""Registry clients other than builders."""

from __future__ import annotations

from pathlib import Path

from tests.real.home import Home
from tests.real.process import require, require_root

_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
[storage.options.pull_options]
enable_partial_images = "true"
[storage.options.overlay]
skip_mount_home = "true"
"""

_ANY_IMAGE = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Crane:
    """go-containerregistry's command."""

    def __init__(self, folder: Path) -> None:
        require("crane")
        self.home = Home(folder)

    def run(self, *arguments: str) -> str:
        """Run `crane <arguments>` and return its output; raise `CommandError` when it fails."""
        return self.home.run("crane", "--insecure", *arguments)


class Skopeo:
    """Skopeo, on the containers/image library as Podman and Buildah are."""

    def __init__(self, folder: Path) -> None:
        require("skopeo")
        self.home = Home(folder)

    def copy(self, source: str, target: str, *options: str) -> None:
        """Copy between two places such as `docker://HOST/NAME:TAG` and `oci:FOLDER:TAG`."""
        insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
        self._run("copy", *insecure, *options, source, target)

    def inspect(self, image: str, *options: str) -> str:
        """Return what is known of `image` as JSON."""
        return self._run("inspect", "--tls-verify=false", *options, image)

    def delete(self, image: str) -> None:
        """Delete the manifest that `image` names."""
        self._run("delete", "--tls-verify=false", image)

    def _run(self, *arguments: str) -> str:
        return self.home.run("skopeo", "--insecure-policy", *arguments)


class Store:
    """An image store that skopeo fills with no more of a zstd:chunked layer than it lacks.

    This is what Podman does; only on overlayfs it can, and for that it needs root.
    """

    def __init__(self, folder: Path) -> None:
        require_root()
        require("skopeo")
        config = folder / "storage.conf"
        self._home = Home(folder, CONTAINERS_STORAGE_CONF=str(config))
        self._layers = folder / "storage" / "overlay"
        config.write_text(_STORAGE.format(folder=folder))

    def pull(self, image: str) -> None:
        """Pull `image` into the store."""
        copy = ("--insecure-policy", "copy", "--src-tls-verify=false")
        self._home.run("skopeo", *copy, f"docker://{image}", f"containers-storage:{image}")

    def layers(self) -> list[dict[str, bytes]]:
        """The files of each layer in the store."""
        return [
            {path.name: path.read_bytes() for path in layer.iterdir()}
            for layer in self._layers.glob("*/diff")
        ]


class Buildah:
    """Buildah with an image store of its own; it needs root."""

    def __init__(self, folder: Path) -> None:
        require_root()
        require("buildah")
        self.home = Home(folder)
        self._policy = folder / "policy.json"
        self._policy.write_text(_ANY_IMAGE)

    def pull(self, image: str) -> None:
        """Pull `image` into the store."""
        self.run("pull", "--tls-verify=false", f"--signature-policy={self._policy}", image)

    def push(self, image: str, target: str, *options: str) -> None:
        """Push `image` of the store to `target`."""
        insecure = ("--tls-verify=false", f"--signature-policy={self._policy}")
        self.run("push", *insecure, *options, image, target)

    def build(self, context: Path, *options: str) -> str:
        """Build the Dockerfile in the folder `context` and return what buildah prints."""
        settings = ("--layers", "--tls-verify=false", "--isolation=chroot")
        policy = f"--signature-policy={self._policy}"
        return self.run("build", *settings, policy, *options, str(context))

    def run(self, *arguments: str) -> str:
        """Run `buildah <arguments>` on the store and return its output."""
        root, runroot = self.home.folder / "storage", self.home.folder / "run"
        store = (f"--root={root}", f"--runroot={runroot}", "--storage-driver=vfs")
        return self.home.run("buildah", *store, *arguments)
