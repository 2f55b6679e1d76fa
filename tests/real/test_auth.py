"""Real clients under access control: with credentials, without, and with wrong ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.access.doors import PASSWORD, hashed, htpasswd
from tests.real.base_image import BaseImage
from tests.real.build import BuildError
from tests.real.buildkit import BuildKit
from tests.real.buildx import Buildx
from tests.real.clients import Buildah, Crane, Skopeo
from tests.real.home import Home
from tests.real.process import CommandError
from tests.s3.tls import certify
from tests.server import Server

_RULES = """[
{anonymous: true, actions: [pull], repositories: ["base/*"]},
{groups: [ci], actions: [pull, push], repositories: ["ci/*"]},
{users: [admin], actions: [pull, push, delete], repositories: ["*"]},
{users: [reader], actions: [pull], repositories: ["ci/*"]}]"""

# Where the rules are not the same, blobs are not shared.
_CONTROLLED = (
    f"--auth-rules={_RULES}",
    "--auth-groups={ci: [runner]}",
    "--storage-namespaces=[{name: base, repositories: [base/*]}, {name: ci, repositories: [ci/*]}]",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A registry with an admin, a runner, a reader and a stranger."""
    users = tmp_path / "htpasswd"
    stored = hashed(PASSWORD, 8)
    users.write_text("".join(f"{user}:{stored}\n" for user in ("admin", "runner", "reader", "x")))
    with Server.running(tmp_path, f"--auth-htpasswd-file={users}", *_CONTROLLED) as running:
        yield running


@pytest.fixture
def base(server: Server, layout: BaseImage, crane: Crane) -> str:
    """The base image, pushed by the admin; crane has no credentials any more."""
    crane.home.login(server.host, "admin", PASSWORD)
    try:
        return layout.push(server.host, crane)
    finally:
        crane.home.logout()


@pytest.fixture
def buildkit(buildkit: BuildKit) -> Iterator[BuildKit]:
    """A buildkitd whose client loses its credentials after the test."""
    yield buildkit
    buildkit.home.logout()


@pytest.fixture
def context(tmp_path: Path, base: str) -> Path:
    """A build that runs something, on an image that everybody may pull."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {base}\nRUN echo built > /built\n")
    return folder


def _ref(server: Server, repository: str = "ci/app") -> str:
    return f"type=registry,ref={server.host}/{repository}:cache"


def test_buildkit_exports_and_imports_with_credentials(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """The credentials are the client's, who asks for the token; the audit names the user."""
    buildkit.home.login(server.host, "runner", PASSWORD)
    buildkit.build(context, f"--export-cache={_ref(server)},mode=max")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache={_ref(server)}")

    assert build.executed == []
    lines = [json.loads(line) for line in server.daemon.log.splitlines()]
    tokens = [(each["method"], each["user"]) for each in lines if each.get("endpoint") == "token"]
    assert ("POST", "runner") in tokens
    audited = {each["user"] for each in lines if each["event"] == "audit"}
    assert audited == {"admin", "runner"}


def test_buildx_exports_and_imports_with_credentials(
    server: Server, buildx: Buildx, buildkit: BuildKit, context: Path
) -> None:
    """As after `docker login`, for a builder elsewhere that has no credentials of its own."""
    buildx.home.login(server.host, "runner", PASSWORD)
    image = f"{server.host}/ci/app:image"
    buildx.build(context, f"--cache-to={_ref(server)},mode=max", f"--tag={image}", "--push")
    buildkit.prune()

    assert buildx.build(context, f"--cache-from={_ref(server)}").executed == []
    shown = buildx.home.run("buildx", "imagetools", "inspect", image)
    assert "linux/" in shown


def test_buildkit_without_credentials_builds_on_what_is_open(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """Anonymous pull by rule; the export of a cache is refused, and says why."""
    buildkit.build(context)
    with pytest.raises(BuildError, match=r"401|[Uu]nauthorized|authorization failed"):
        buildkit.build(context, f"--export-cache={_ref(server)},mode=max")


def test_a_cache_that_may_not_be_imported_is_a_miss(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """The build goes on without it."""
    buildkit.home.login(server.host, "runner", PASSWORD)
    buildkit.build(context, f"--export-cache={_ref(server)},mode=max")
    for user in (None, "x"):
        buildkit.prune()
        buildkit.home.logout()
        if user:
            buildkit.home.login(server.host, user, PASSWORD)
        build = buildkit.build(context, f"--import-cache={_ref(server)}")
        assert build.executed == ["[2/2] RUN echo built > /built"]


@pytest.mark.parametrize(
    ("user", "password", "says"),
    [
        ("runner", "wrong", "the user name or the password is wrong"),
        ("reader", PASSWORD, "user reader may not push to ci/app"),
        ("x", PASSWORD, "user x may not pull from ci/app"),
    ],
)
def test_buildkit_with_the_wrong_credentials_is_refused(
    server: Server, buildkit: BuildKit, context: Path, user: str, password: str, says: str
) -> None:
    """A wrong password, who may only pull, and who may nothing."""
    buildkit.build(context)
    buildkit.home.login(server.host, user, password)
    with pytest.raises(BuildError, match=says):
        buildkit.build(context, f"--export-cache={_ref(server)},mode=max")


def _uploads(server: Server, repository: str) -> int:
    """How many uploads to a repository were begun."""
    lines = [json.loads(line) for line in server.daemon.log.splitlines()]
    asked = [(line["method"], line["path"]) for line in lines if line["event"] == "request"]
    return asked.count(("POST", f"/v2/{repository}/blobs/uploads/"))


def test_buildkit_uploads_what_those_who_may_pull_do_not_have(
    server: Server, buildkit: BuildKit, context: Path, crane: Crane
) -> None:
    """The base has other readers, so its layers are uploaded; where the readers are the same all
    is there already."""
    buildkit.home.login(server.host, "runner", PASSWORD)
    images = [f"{server.host}/{name}:image" for name in ("ci/app", "ci/other")]
    for image in images:
        buildkit.build(context, f"--output=type=image,name={image},push=true")

    assert (_uploads(server, "ci/app"), _uploads(server, "ci/other")) == (3, 0)
    crane.home.login(server.host, "reader", PASSWORD)
    for image in images:
        crane.run("validate", "--remote", image)


def test_crane_with_and_without_credentials(
    server: Server, base: str, layout: BaseImage, crane: Crane
) -> None:
    """Pulls what is open, copies what is there, lists what may be seen, and deletes if it may."""
    copy, second = f"{server.host}/ci/copy:tag", f"{server.host}/ci/second:tag"
    crane.run("validate", "--remote", base)
    with pytest.raises(CommandError, match="401 Unauthorized"):
        crane.run("push", str(layout.folder), copy)

    crane.home.login(server.host, "runner", PASSWORD)
    crane.run("copy", base, copy)
    crane.run("push", str(layout.folder), copy)
    crane.run("copy", copy, second)
    assert _uploads(server, "ci/second") == 0
    assert crane.run("catalog", server.host).split() == ["base/busybox", "ci/copy", "ci/second"]
    with pytest.raises(CommandError, match="DENIED"):
        crane.run("delete", copy)
    with pytest.raises(CommandError, match="403 Forbidden"):
        crane.run("push", str(layout.folder), f"{server.host}/other:tag")

    crane.home.login(server.host, "x", PASSWORD)
    assert crane.run("catalog", server.host).split() == ["base/busybox"]
    crane.home.login(server.host, "admin", PASSWORD)
    crane.run("delete", copy)
    assert crane.run("ls", f"{server.host}/ci/copy").split() == []


def test_skopeo_with_and_without_credentials(
    server: Server, base: str, layout: BaseImage, skopeo: Skopeo, tmp_path: Path
) -> None:
    """Pulls what is open, copies in and out, inspects, and deletes if it may."""
    copy = f"docker://{server.host}/ci/copy:tag"
    skopeo.copy(f"docker://{base}", f"oci:{tmp_path}/open:")
    with pytest.raises(CommandError, match="checking whether a blob"):
        skopeo.copy(f"oci:{layout.folder}:", copy)

    skopeo.home.login(server.host, "runner", PASSWORD)
    skopeo.copy(f"oci:{layout.folder}:", copy)
    skopeo.copy(copy, f"oci:{tmp_path}/out:")
    assert json.loads(skopeo.inspect(copy))["RepoTags"] == ["tag"]
    with pytest.raises(CommandError, match=r"403|denied"):
        skopeo.delete(copy)
    skopeo.home.login(server.host, "admin", PASSWORD)
    skopeo.delete(copy)


def _log_in(home: Home, binary: str, host: str, password: str) -> str:
    options = ("--tls-verify=false", "--username=runner", f"--password={password}")
    return home.run(binary, "login", *options, host)


def test_buildah_logs_in_pushes_and_pulls(server: Server, base: str, buildah: Buildah) -> None:
    """`login` tells at once whether the password is right."""
    with pytest.raises(CommandError, match="invalid username/password"):
        _log_in(buildah.home, "buildah", server.host, "wrong")
    buildah.pull(base)
    copy = f"{server.host}/ci/copy:tag"
    with pytest.raises(CommandError, match="checking whether a blob"):
        buildah.push(base, f"docker://{copy}")

    assert "Login Succeeded" in _log_in(buildah.home, "buildah", server.host, PASSWORD)
    buildah.push(base, f"docker://{copy}")
    buildah.run("rmi", "--all", "--force")
    buildah.pull(copy)


def test_a_wrong_password_is_refused_and_says_so(
    server: Server, base: str, crane: Crane, skopeo: Skopeo
) -> None:
    """Though anybody may pull this: a typing error is not to pass for nobody."""
    crane.home.login(server.host, "runner", "wrong")
    with pytest.raises(CommandError, match="the user name or the password is wrong"):
        crane.run("manifest", base)
    skopeo.home.login(server.host, "runner", "wrong")
    with pytest.raises(CommandError, match="invalid username/password"):
        skopeo.inspect(f"docker://{base}")


def test_no_credentials_are_kept(
    server: Server, base: str, crane: Crane, skopeo: Skopeo, buildkit: BuildKit, context: Path
) -> None:
    """In no log and in no stored byte: passwords, and tokens (all begin alike)."""
    for client in (crane, skopeo, buildkit):
        client.home.login(server.host, "runner", PASSWORD)
    buildkit.build(context, f"--export-cache={_ref(server)},mode=max")
    crane.run("copy", base, f"{server.host}/ci/copy:tag")
    skopeo.inspect(f"docker://{server.host}/ci/copy:tag")

    files = [path.read_bytes() for path in server.data.rglob("*") if path.is_file()]
    for text in (server.daemon.log.encode(), *files):
        assert PASSWORD.encode() not in text
        assert b"eyJ" not in text


def test_crane_pushes_and_pulls_by_tls(tmp_path: Path, layout: BaseImage, crane: Crane) -> None:
    """With credentials, and a realm that is https."""
    (tmp_path / "ca").mkdir()
    made = certify(tmp_path / "ca")
    (tmp_path / "users").write_text(htpasswd("admin"))
    flags = (
        f"--server-tls-cert-file={made.file}",
        f"--server-tls-key-file={made.key}",
        f"--auth-htpasswd-file={tmp_path}/users",
        *_CONTROLLED,
    )
    with Server.running(tmp_path, *flags) as server:
        crane.home.login(server.host, "admin", PASSWORD)
        crane.run("validate", "--remote", layout.push(server.host, crane))
        assert '"endpoint":"token"' in server.daemon.log
