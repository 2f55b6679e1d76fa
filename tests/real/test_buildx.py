"""buildx, the command that people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.real.buildkit import BuildKit
from tests.real.buildx import Buildx
from tests.real.clients import Crane
from tests.server import Server

_PROVENANCE = "https://slsa.dev/provenance/v1"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build that any platform can make: it runs nothing."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    (folder / "file").write_text("content\n")
    return folder


@pytest.fixture
def image(server: Server, buildx: Buildx, context: Path) -> str:
    """The name of an image for two platforms, with the attestations that are default."""
    name = f"{server.host}/team/app:v1"
    buildx.build(context, "--platform=linux/amd64,linux/arm64", f"--tag={name}", "--push")
    return name


def test_the_line_that_the_server_prints_works(
    server: Server, buildx: Buildx, buildkit: BuildKit, context: Path
) -> None:
    """--cache-to and --cache-from of one registry reference make the second build cached."""
    ref = f"type=registry,ref={server.host}/ci/app:cache"
    buildx.build(context, f"--cache-to={ref},mode=max")
    buildkit.prune()

    build = buildx.build(context, f"--cache-from={ref}")

    assert build.executed == []


def test_an_image_for_two_platforms_is_inspected_with_its_attestations(
    buildx: Buildx, image: str
) -> None:
    """imagetools shows both platforms, and an attestation for each."""
    index = json.loads(_imagetools(buildx, "inspect", "--raw", image))

    platforms = [entry["platform"]["architecture"] for entry in index["manifests"]]
    assert sorted(platforms) == ["amd64", "arm64", "unknown", "unknown"]


def test_an_image_for_two_platforms_is_shown_to_people(buildx: Buildx, image: str) -> None:
    """imagetools tells the platforms by name."""
    shown = _imagetools(buildx, "inspect", image)

    assert "linux/amd64" in shown
    assert "linux/arm64" in shown


def test_the_attestation_of_an_image_is_found_as_its_referrer(
    server: Server, buildx: Buildx, image: str
) -> None:
    """Each platform's image is referred to by the attestation that BuildKit pushed with it."""
    index = json.loads(_imagetools(buildx, "inspect", "--raw", image))
    images, attestations = index["manifests"][:2], index["manifests"][2:]

    found = {
        attestation["digest"]
        for manifest in images
        for attestation in json.loads(server.get(f"/v2/team/app/referrers/{manifest['digest']}"))[
            "manifests"
        ]
    }

    assert found == {attestation["digest"] for attestation in attestations}


@pytest.mark.parametrize("target", ["team/app:v2", "other/app:v2"])
def test_an_image_is_created_from_another(
    buildx: Buildx, image: str, server: Server, crane: Crane, target: str
) -> None:
    """imagetools gives an image another tag, in its own repository or copied to another; both
    platforms are whole there."""
    copy = f"{server.host}/{target}"

    _imagetools(buildx, "create", f"--tag={copy}", image)

    assert _imagetools(buildx, "inspect", "--raw", copy) == _imagetools(
        buildx, "inspect", "--raw", image
    )
    crane.run("validate", "--remote", copy)


def test_an_image_is_copied_to_another_repository_with_its_attestations(
    buildx: Buildx, image: str, server: Server, crane: Crane
) -> None:
    """imagetools copies what each attestation states, too."""
    repository = f"{server.host}/other/app"

    _imagetools(buildx, "create", f"--tag={repository}:v2", image)

    index = json.loads(crane.run("manifest", f"{repository}:v2"))
    statements = [
        json.loads(crane.run("blob", f"{repository}@{layer['digest']}"))
        for entry in index["manifests"][2:]
        for layer in json.loads(crane.run("manifest", f"{repository}@{entry['digest']}"))["layers"]
    ]
    assert [statement["predicateType"] for statement in statements] == [_PROVENANCE] * 2


def _imagetools(buildx: Buildx, *arguments: str) -> str:
    return buildx.home.run("buildx", "imagetools", *arguments)
