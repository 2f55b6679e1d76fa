"""Clients other than builders."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.real.base_image import BaseImage
from tests.real.buildkit import BuildKit
from tests.real.clients import Buildah, Crane, Skopeo
from tests.real.gate import Gate
from tests.real.process import CommandError
from tests.server import Server

_USER = "someone"
_PASSWORD = "correct-horse-battery-staple"
_LOGIN = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()

_ZSTD = b"\x28\xb5\x2f\xfd"
_CHUNKED = "io.containers.zstd-chunked.manifest-checksum"


def test_crane_pushes_and_pulls_what_is_valid(server: Server, base: str, crane: Crane) -> None:
    """An image that crane pushed is pulled again, every digest checked."""
    crane.run("validate", "--remote", base)


def test_crane_reads_what_was_pushed(
    base: str, layout: BaseImage, crane: Crane, tmp_path: Path
) -> None:
    """Manifest, digest and every blob are those of the image that was pushed."""
    crane.run("pull", "--format=oci", base, str(tmp_path / "pulled"))

    digest = crane.run("digest", base).strip()

    assert _blobs(tmp_path / "pulled") == _blobs(layout.folder)
    assert crane.run("manifest", base).encode() == _blobs(layout.folder)[_hex(digest)]


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


@pytest.fixture
def signed(base: str, crane: Crane) -> tuple[str, str]:
    """A base image's signature as cosign names it, and its referrers as clients without that API
    do."""
    repository = base.rpartition(":")[0]
    subject = f"{repository}:sha256-{_hex(crane.run('digest', base).strip())}"
    signature = f"{subject}.sig"
    crane.run("mutate", "--annotation=signs=base", f"--tag={signature}", base)
    crane.run("index", "append", f"--manifest={signature}", f"--tag={subject}")
    return signature, subject


def test_crane_lists_and_pulls_by_tags_made_of_digests(
    base: str, signed: tuple[str, str], crane: Crane
) -> None:
    """A tag that looks like a digest is a tag as any other."""
    signature, subject = signed

    assert crane.run("ls", base.rpartition(":")[0]).split() == [
        "latest",
        *sorted(_tag(name) for name in signed),
    ]
    crane.run("validate", "--remote", signature)
    crane.run("validate", "--remote", subject)


@pytest.mark.parametrize("deleted", [0, 1], ids=["signature", "referrers"])
def test_a_deleted_tag_made_of_a_digest_leaves_the_other(
    base: str, signed: tuple[str, str], crane: Crane, deleted: int
) -> None:
    """The tag of the signature and that of the referrers begin alike, and are two."""
    kept = signed[1 - deleted]

    crane.run("delete", signed[deleted])

    assert crane.run("ls", base.rpartition(":")[0]).split() == ["latest", _tag(kept)]
    crane.run("validate", "--remote", kept)


def test_skopeo_copies_in_and_out(
    server: Server, layout: BaseImage, skopeo: Skopeo, tmp_path: Path
) -> None:
    """An image that went in and came out has the bytes it had, its manifest included."""
    target = f"docker://{server.host}/skopeo/image:plain"
    skopeo.copy(f"oci:{layout.folder}:", target, "--preserve-digests")

    skopeo.copy(target, f"oci:{tmp_path}/out:", "--preserve-digests")

    assert _blobs(tmp_path / "out") == _blobs(layout.folder)


@pytest.mark.parametrize("compression", ["zstd", "zstd:chunked"])
def test_skopeo_copies_in_and_out_what_it_compresses_anew(
    server: Server, layout: BaseImage, skopeo: Skopeo, tmp_path: Path, compression: str
) -> None:
    """An image whose layers skopeo turns into zstd is pulled with the digests it got."""
    target = f"docker://{server.host}/skopeo/image:anew"
    skopeo.copy(f"oci:{layout.folder}:", target, f"--dest-compress-format={compression}")
    pushed = json.loads(skopeo.inspect(target, "--raw"))

    skopeo.copy(target, f"oci:{tmp_path}/out:", "--preserve-digests")

    layer = pushed["layers"][0]
    assert layer["mediaType"].endswith("tar+zstd")
    assert (_CHUNKED in layer.get("annotations", {})) == (compression == "zstd:chunked")
    assert _blobs(tmp_path / "out")[_hex(layer["digest"])].startswith(_ZSTD)


def test_skopeo_inspects(base: str, layout: BaseImage, skopeo: Skopeo) -> None:
    """`skopeo inspect` tells the digest, the tags, and what the config says."""
    seen = json.loads(skopeo.inspect(f"docker://{base}"))

    assert _hex(seen["Digest"]) in _blobs(layout.folder)
    assert seen["RepoTags"] == ["latest"]
    assert seen["Env"] == ["PATH=/bin"]


def test_skopeo_deletes(server: Server, base: str, skopeo: Skopeo, crane: Crane) -> None:
    """`skopeo delete` removes the manifest that a tag points to."""
    skopeo.delete(f"docker://{base}")

    assert crane.run("catalog", server.host).split() == []


def test_buildah_shares_its_cache(
    server: Server, base: str, buildah: Buildah, tmp_path: Path
) -> None:
    """A layer that buildah exported with --cache-to is imported with --cache-from."""
    context = _context(tmp_path, base)
    cache = f"{server.host}/buildah/cache"
    buildah.build(context, f"--cache-to={cache}")
    buildah.run("rmi", "--all", "--force")

    output = buildah.build(context, f"--cache-from={cache}")

    assert "Cache pulled from remote" in output


def test_buildah_pushes_and_pulls_what_it_built(
    server: Server, base: str, buildah: Buildah, crane: Crane, tmp_path: Path
) -> None:
    """An image that buildah pushed is valid, and is pulled into an empty store."""
    name = f"{server.host}/buildah/image:built"
    buildah.build(_context(tmp_path, base), f"--tag={name}")
    buildah.push(name, f"docker://{name}")
    buildah.run("rmi", "--all", "--force")

    buildah.pull(name)

    crane.run("validate", "--remote", name)
    images = json.loads(buildah.run("images", "--json"))
    assert [image["names"] for image in images] == [[name]]


def test_a_docker_style_push_by_chunked_patch(server: Server) -> None:
    """POST, PATCH with chunked transfer encoding, empty PUT: as Docker's classic engine pushes."""
    content = b"layer" * 100_000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with closing(http.client.HTTPConnection(server.host, timeout=30)) as connection:
        started, _ = _send(connection, "POST", "/v2/docker/app/blobs/uploads/", 202)
        chunks = iter([content[:7], content[7:]])
        patched, _ = _send(connection, "PATCH", started["Location"], 202, chunks)
        _send(connection, "PUT", f"{patched['Location']}?digest={digest}", 201)
        known, _ = _send(connection, "HEAD", f"/v2/docker/app/blobs/{digest}", 200)
        _, stored = _send(connection, "GET", f"/v2/docker/app/blobs/{digest}", 200)

    assert patched["Range"] == f"0-{len(content) - 1}"
    assert known["Content-Length"] == str(len(content))
    assert stored == content


@pytest.fixture
def gate(server: Server, tmp_path: Path) -> Iterator[Gate]:
    """What makes clients send their credentials to a registry that asks for none."""
    folder = tmp_path / "gate"
    folder.mkdir()
    with Gate.running(folder, server.host, _USER, _PASSWORD) as running:
        yield running


def test_a_client_without_credentials_is_stopped_by_the_gate(
    gate: Gate, layout: BaseImage, crane: Crane
) -> None:
    """The scene of the next tests is right: a push that passes the gate has sent credentials."""
    with pytest.raises(CommandError, match="401"):
        layout.push(gate.host, crane)


def test_credentials_of_registry_clients_are_kept_nowhere(
    server: Server, gate: Gate, layout: BaseImage, crane: Crane, skopeo: Skopeo, buildah: Buildah
) -> None:
    """What crane, skopeo and buildah log in with is in no log, metric or stored byte."""
    for client in (crane, skopeo, buildah):
        client.home.login(gate.host, _USER, _PASSWORD)
    base = layout.push(gate.host, crane)
    skopeo.copy(f"oci:{layout.folder}:", f"docker://{gate.host}/skopeo/image:latest")
    skopeo.inspect(f"docker://{base}")
    buildah.pull(base)
    buildah.push(base, f"docker://{gate.host}/buildah/image:latest")

    assert not _traces_of_credentials(_kept(server))


def test_credentials_of_buildkit_are_kept_nowhere(
    server: Server, gate: Gate, layout: BaseImage, crane: Crane, buildkit: BuildKit, tmp_path: Path
) -> None:
    """What BuildKit logs in with is in no log, metric or stored byte, nor in the cache itself."""
    for client in (crane, buildkit):
        client.home.login(gate.host, _USER, _PASSWORD)
    context = _context(tmp_path, layout.push(gate.host, crane))
    ref = f"type=registry,ref={gate.host}/ci/app:cache"
    buildkit.build(context, f"--export-cache={ref},mode=max")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache={ref}")

    assert build.executed == []
    assert not _traces_of_credentials(_kept(server))


def test_credentials_of_a_bad_request_are_kept_nowhere(server: Server) -> None:
    """A request that fails tells no credentials, neither in its answer nor in the log."""
    with closing(http.client.HTTPConnection(server.host, timeout=30)) as connection:
        connection.request("GET", "/v2/no%00name", headers={"Authorization": f"Basic {_LOGIN}"})
        error = connection.getresponse().read()
    server.daemon.wait_for_log('"status":404')  # the line is written after the answer

    assert json.loads(error)["errors"]
    assert not _traces_of_credentials([*_kept(server), error])


def _context(folder: Path, base: str) -> Path:
    """A build of one step that needs no container."""
    context = folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /copy\n")
    return context


def _blobs(layout: Path) -> dict[str, bytes]:
    """All blobs of an OCI layout by the hex of their digest."""
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


def _tag(name: str) -> str:
    return name.rpartition(":")[2]


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _kept(server: Server) -> list[bytes]:
    """All that the server has written or would tell."""
    files = [path.read_bytes() for path in server.data.rglob("*") if path.is_file()]
    return [server.daemon.log.encode(), server.get("/metrics").encode(), *files]


def _traces_of_credentials(texts: list[bytes]) -> list[bytes]:
    """Those texts that hold the password, as it is or as it goes over the wire."""
    return [text for text in texts if _PASSWORD.encode() in text or _LOGIN.encode() in text]


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    status: int,
    body: Iterator[bytes] | None = None,
) -> tuple[http.client.HTTPMessage, bytes]:
    """Send a body, if any, with chunked transfer encoding; return the answer's headers and body."""
    connection.request(method, path, body=body)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == status
    return answer.headers, content
