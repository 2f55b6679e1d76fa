"""Builders of two teams whose caches share nothing."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.access.doors import PASSWORD, hashed
from tests.real.base_image import BaseImage
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.server import Server

_TEAMS = ("blue", "red")
_NAMESPACES = (
    "--storage-namespaces=[{name: blue, repositories: [blue/*]},"
    " {name: red, repositories: [red/*]}]"
)
_RULES = """--auth-rules=[
{users: [blue], actions: [pull, push], repositories: ["blue/*"]},
{users: [red], actions: [pull, push], repositories: ["red/*"]}]"""
_STEP = "[2/2] RUN echo built > /built"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A registry with two teams, each with a namespace and a user of its own."""
    users = tmp_path / "htpasswd"
    users.write_text("".join(f"{team}:{hashed(PASSWORD, 8)}\n" for team in _TEAMS))
    flags = (f"--auth-htpasswd-file={users}", _RULES, _NAMESPACES)
    with Server.running(tmp_path, *flags) as running:
        yield running


@pytest.fixture
def buildkit(buildkit: BuildKit) -> Iterator[BuildKit]:
    """A buildkitd whose client loses its credentials after the test."""
    yield buildkit
    buildkit.home.logout()


def _context(folder: Path, base: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {base}\nRUN echo built > /built\n")
    return folder


def _ref(server: Server, repository: str) -> str:
    return f"type=registry,ref={server.host}/{repository}:cache"


def _blobs(server: Server, namespace: str) -> set[str]:
    return {path.name for path in (server.data / namespace / "blobs").glob("*/*/*")}


def test_teams_cache_the_same_build_apart(
    server: Server, buildkit: BuildKit, layout: BaseImage, crane: Crane, tmp_path: Path
) -> None:
    """What one has exported the other cannot import, and is not told to be there: who exports the
    same layers pushes them. In the end each has a cache."""
    contexts = {}
    for team in _TEAMS:
        for home in (crane.home, buildkit.home):
            home.login(server.host, team, PASSWORD)
        base = f"{server.host}/{team}/base:latest"
        crane.run("push", str(layout.folder), base)
        contexts[team] = _context(tmp_path / team, base)
        before = _blobs(server, team)
        for name in ("app", "other"):
            cache = f"--export-cache={_ref(server, f'{team}/{name}')},mode=max"
            buildkit.build(contexts[team], cache)
        assert _blobs(server, team) > before
    layers = [_blobs(server, team) for team in _TEAMS]
    assert len(layers[0] & layers[1]) >= 3  # those of the image, and that of the step

    # A repository for each user: BuildKit keeps the token with which it has asked for a cache.
    for team, other in zip(_TEAMS, reversed(_TEAMS), strict=True):
        buildkit.home.login(server.host, team, PASSWORD)
        for repository, executed in ((f"{other}/other", [_STEP]), (f"{team}/app", [])):
            buildkit.prune()
            build = buildkit.build(contexts[team], f"--import-cache={_ref(server, repository)}")
            assert build.executed == executed, (team, repository)


def test_a_manifest_of_a_cache_brings_no_layers_of_another_namespace(
    tmp_path: Path, buildkit: BuildKit, layout: BaseImage, crane: Crane
) -> None:
    """Who has it can push it; where its layers are it is a cache, elsewhere a miss."""
    with Server.running(tmp_path, _NAMESPACES) as server:
        base = f"{server.host}/blue/base:latest"
        crane.run("push", str(layout.folder), base)
        context = _context(tmp_path / "context", base)
        buildkit.build(context, f"--export-cache={_ref(server, 'blue/app')},mode=max")
        manifest = crane.run("manifest", f"{server.host}/blue/app:cache")

        for repository, executed in (("blue/other", []), ("red/app", [_STEP])):
            url = f"http://{server.host}/v2/{repository}/manifests/cache"
            put = urllib.request.Request(url, manifest.encode(), method="PUT")
            put.add_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            urllib.request.urlopen(put).close()
            buildkit.prune()
            build = buildkit.build(context, f"--import-cache={_ref(server, repository)}")
            assert build.executed == executed, repository
