"""Clients other than builders."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from pathlib import Path

import pytest

from tests.real.base_image import BaseImage
from tests.real.clients import Buildah, Crane, Skopeo
from tests.server import Server

_PASSWORD = "correct-horse-battery-staple"


def test_crane_pushes_and_pulls_what_is_valid(server: Server, base: str, crane: Crane) -> None:
    """An image that crane pushed is pulled again, every digest checked."""
    crane.run("validate", "--remote", base)


def test_crane_copies_lists_and_deletes(server: Server, base: str, crane: Crane) -> None:
    """Repositories and tags are listed in order; a deleted tag is gone, the others stay."""
    crane.run("copy", base, f"{server.host}/copies/one:a")
    crane.run("copy", base, f"{server.host}/copies/one:b")

    crane.run("delete", f"{server.host}/copies/one:a")

    assert crane.run("ls", f"{server.host}/copies/one").split() == ["b"]
    assert crane.run("catalog", server.host).split() == ["base/busybox", "copies/one"]


def test_crane_deletes_an_image_by_its_digest(server: Server, base: str, crane: Crane) -> None:
    """Deleting a manifest by digest takes its tags with it."""
    digest = crane.run("digest", base).strip()

    crane.run("delete", f"{base.rpartition(':')[0]}@{digest}")

    assert crane.run("catalog", server.host).split() == []


@pytest.mark.parametrize("format_", ["gzip", "zstd"])
def test_skopeo_copies_in_and_out(
    server: Server, layout: BaseImage, skopeo: Skopeo, tmp_path: Path, format_: str
) -> None:
    """An image keeps its bytes on the way in and out, also when skopeo compresses it anew."""
    source, target = f"oci:{layout.folder}:", f"docker://{server.host}/skopeo/image:{format_}"
    skopeo.copy(source, target, f"--dest-compress-format={format_}")
    pushed = skopeo.inspect(target, "--raw")

    skopeo.copy(target, f"dir:{tmp_path}/out", "--preserve-digests")

    assert (tmp_path / "out" / "manifest.json").read_text() == pushed


def test_skopeo_deletes(server: Server, base: str, skopeo: Skopeo, crane: Crane) -> None:
    """`skopeo delete` removes the manifest that a tag points to."""
    skopeo.delete(f"docker://{base}")

    assert crane.run("catalog", server.host).split() == []


def test_buildah_shares_its_cache(
    server: Server, base: str, buildah: Buildah, tmp_path: Path
) -> None:
    """A layer that buildah exported with --cache-to is imported with --cache-from."""
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /copy\n")
    options = (
        *("build", "--layers", "--tls-verify=false", "--isolation=chroot"),
        *(f"--signature-policy={buildah.home.folder / 'policy.json'}", str(tmp_path)),
    )
    cache = f"{server.host}/buildah/cache"
    buildah.run(*options[:-1], f"--cache-to={cache}", f"--cache-from={cache}", options[-1])
    buildah.run("rmi", "--all", "--force")

    output = buildah.run(*options[:-1], f"--cache-from={cache}", options[-1])

    assert "Cache pulled from remote" in output


def test_a_docker_style_push_by_chunked_patch(server: Server) -> None:
    """POST, PATCH with chunked transfer encoding, empty PUT: as Docker's classic engine pushes."""
    content = b"layer" * 100_000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    connection = http.client.HTTPConnection(server.host, timeout=30)
    location = _send(connection, "POST", "/v2/docker/app/blobs/uploads/", 202).headers["Location"]
    patched = _send(connection, "PATCH", location, 202, iter([content[:7], content[7:]]))
    location = patched.headers["Location"]
    _send(connection, "PUT", f"{location}?digest={digest}", 201)

    answer = _send(connection, "HEAD", f"/v2/docker/app/blobs/{digest}", 200)

    assert patched.headers["Range"] == f"0-{len(content) - 1}"
    assert answer.headers["Content-Length"] == str(len(content))
    connection.close()


def test_credentials_are_kept_nowhere(
    server: Server, layout: BaseImage, crane: Crane, skopeo: Skopeo
) -> None:
    """What clients log in with is in no log, metric or stored byte, in no form."""
    for client in (crane, skopeo):
        client.home.login(server.host, "someone", _PASSWORD)
    layout.push(server.host, crane)
    skopeo.inspect(f"docker://{server.host}/base/busybox:latest")
    header = base64.b64encode(f"someone:{_PASSWORD}".encode()).decode()
    connection = http.client.HTTPConnection(server.host, timeout=30)
    connection.request("GET", "/v2/no%00name", headers={"Authorization": f"Basic {header}"})
    error = connection.getresponse().read()
    connection.close()

    kept = [server.daemon.log.encode(), server.get("/metrics").encode(), error]
    kept += [path.read_bytes() for path in server.data.rglob("*") if path.is_file()]

    assert json.loads(error)["errors"]
    assert not any(_PASSWORD.encode() in text or header.encode() in text for text in kept)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    status: int,
    body: object = None,
) -> http.client.HTTPResponse:
    connection.request(method, path, body=body, encode_chunked=True)  # type: ignore[arg-type]  # bytes or their iterator
    answer = connection.getresponse()
    answer.read()
    assert answer.status == status
    return answer
