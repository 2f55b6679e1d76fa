"""The image that the Dockerfile makes."""

from __future__ import annotations

import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.real.base_image import BaseImage, PythonImage
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.real.container import Container, UnpackedImage, build_image
from tests.real.port import Port
from tests.real.process import CommandError
from tests.s3.tls import certify
from tests.server import Server


@pytest.fixture(scope="module")
def image(builder: BuildKit) -> Iterator[UnpackedImage]:
    """The image of the Dockerfile, on a base image that is made of this machine's Python."""
    # Not in pytest's folder, which outlives the tests: there are several 100 MB.
    with tempfile.TemporaryDirectory(prefix="container-") as scratch:
        folder = Path(scratch)
        (folder / "python").mkdir()
        crane = Crane(folder / "crane")
        with Server.running(folder) as registry:
            base = PythonImage(folder / "python").push(registry.host, crane)
            name = f"{registry.host}/cacheproxy:built"
            build_image(builder, base, name, folder)
            built = UnpackedImage(name, crane, folder)
        yield built


@contextmanager
def _served(
    image: UnpackedImage, folder: Path, **variables: str
) -> Iterator[tuple[Container, str]]:
    """A container and where it listens."""
    with (
        closing(Port()) as port,
        Container.running(
            image, folder, CACHEPROXY_SERVER__LISTEN=port.host, **variables
        ) as container,
    ):
        container.daemon.wait_for_log(r'"listen":')
        yield container, port.host


def test_a_container_serves_a_push_and_a_pull(
    image: UnpackedImage, crane: Crane, layout: BaseImage, tmp_path: Path
) -> None:
    """Without privileges and on a read-only root, an image is pushed, and pulled as it was."""
    with _served(image, tmp_path / "container") as (_, host):
        name = layout.push(host, crane)

        crane.run("validate", "--remote", name)


def test_a_container_runs_as_nobody_who_can_write_its_root(
    image: UnpackedImage, tmp_path: Path
) -> None:
    """The process has another user than root, and can write only to its volume and /tmp."""
    with _served(image, tmp_path / "container") as (container, _):
        assert container.exec("id", "-u").strip() == "65532"
        container.exec("touch", "/data/file", "/tmp/file")
        with pytest.raises(CommandError, match="Read-only file system"):
            container.exec("touch", "/opt/file")


def test_the_health_check_tells_whether_the_server_lives(
    image: UnpackedImage, tmp_path: Path
) -> None:
    """The image's own health check finds the server where it listens, and fails without it."""
    with (
        _served(image, tmp_path / "container") as (container, _),
        closing(Port()) as unused,
    ):
        container.check_health()
        for setting in ("SERVER", "METRICS"):  # it asks where metrics are, if that is apart
            nobody = {f"CACHEPROXY_{setting}__LISTEN": unused.host}
            with pytest.raises(CommandError, match="ConnectionRefusedError"):
                container.check_health(**nobody)


def test_the_health_check_speaks_tls_to_a_server_that_does(
    image: UnpackedImage, tmp_path: Path
) -> None:
    """The certificate is for others, so its name is not looked at."""
    data = tmp_path / "container" / "data"
    data.mkdir(parents=True)
    made = certify(data)
    made.key.chmod(0o644)
    tls = {
        "CACHEPROXY_SERVER__TLS_CERT_FILE": f"/data/{made.file.name}",
        "CACHEPROXY_SERVER__TLS_KEY_FILE": f"/data/{made.key.name}",
    }
    with _served(image, tmp_path / "container", **tls) as (container, _):
        container.check_health()
        with closing(Port()) as unused, pytest.raises(CommandError, match="ConnectionRefusedError"):
            container.check_health(CACHEPROXY_SERVER__LISTEN=unused.host)


def test_a_container_ends_when_it_is_asked_to(image: UnpackedImage, tmp_path: Path) -> None:
    """SIGTERM reaches the server itself, which ends with 0."""
    with _served(image, tmp_path / "container") as (container, host):
        with urllib.request.urlopen(f"http://{host}/readyz", timeout=60) as answer:
            assert answer.status == 200
        container.stop()

        assert container.daemon.wait_for_end() == 0
