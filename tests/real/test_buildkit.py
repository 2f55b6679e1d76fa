"""BuildKit caches through the registry."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from tests.real.base_image import BaseImage
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane, Skopeo
from tests.real.distribution import Distribution
from tests.server import Server

_DOCKERFILE = """\
FROM {base} AS compile
COPY source /source
RUN tr a-z A-Z < /source > /compiled
FROM {base}
RUN echo tools > /tools
COPY --from=compile /compiled /compiled
RUN cat /compiled /tools > /result
"""

_SECRET = "correct-horse-battery-staple"

_IMAGE_FORMS = {
    "image": "image-manifest=true,oci-mediatypes=true",
    "index": "image-manifest=false,oci-mediatypes=true",
    "docker-list": "image-manifest=false,oci-mediatypes=false",
}


@pytest.fixture
def context(tmp_path: Path, base: str) -> Path:
    """A multi-stage build with a source file."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
    (folder / "source").write_text("first\n")
    return folder


def _ref(host: str, tag: str = "cache") -> str:
    return f"type=registry,ref={host}/ci/app:{tag}"


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed", "estargz"])
@pytest.mark.parametrize("form", _IMAGE_FORMS)
def test_a_cache_of_all_steps_makes_every_step_cached_on_an_empty_builder(
    server: Server, buildkit: BuildKit, context: Path, form: str, compression: str
) -> None:
    """A mode=max cache comes back whole, in every form and compression that BuildKit has."""
    export = f"{_ref(server.host)},mode=max,{_IMAGE_FORMS[form]},compression={compression}"
    buildkit.build(context, f"--export-cache={export},force-compression=true")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert build.executed == []
    assert len(build.cached) == 5


@pytest.mark.parametrize("form", _IMAGE_FORMS)
def test_a_cache_of_the_result_makes_its_steps_cached(
    server: Server, buildkit: BuildKit, context: Path, form: str
) -> None:
    """A mode=min cache holds the steps whose layers are in the result."""
    export = f"{_ref(server.host)},mode=min,{_IMAGE_FORMS[form]}"
    buildkit.build(context, f"--export-cache={export}")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert any("echo tools" in step for step in build.cached)


def test_a_changed_source_runs_only_the_steps_below_it(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """What does not depend on the changed file comes from the cache."""
    buildkit.build(context, f"--export-cache={_ref(server.host)},mode=max")
    buildkit.prune()
    (context / "source").write_text("second\n")

    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert [step for step in build.cached if "echo tools" in step] == build.cached
    assert len(build.executed) == 4


def test_an_image_and_a_cache_with_the_same_layers_are_pushed_by_one_build(
    server: Server, buildkit: BuildKit, context: Path, crane: Crane
) -> None:
    """BuildKit uploads the same digests twice at once; both uploads succeed."""
    name = f"{server.host}/ci/app:image"
    buildkit.build(
        context,
        f"--output=type=image,name={name},push=true",
        f"--export-cache={_ref(server.host)},mode=max",
    )

    assert crane.run("ls", f"{server.host}/ci/app").split() == ["cache", "image"]
    crane.run("validate", "--remote", name)


def test_an_unchanged_cache_is_not_uploaded_again(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """HEAD of a blob that is there spares its upload, also to another repository."""
    buildkit.build(context, f"--export-cache={_ref(server.host)},mode=max")
    before = server.daemon.log.count('"endpoint":"end-6"')

    buildkit.build(context, f"--export-cache=type=registry,ref={server.host}/other:cache,mode=max")

    assert server.daemon.log.count('"endpoint":"end-6"') - before <= 1  # the config has new times


def test_an_inline_cache_is_found_in_the_image(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """A cache in the image's own config is imported from the image."""
    name = f"{server.host}/ci/app:inline"
    output = f"--output=type=image,name={name},push=true"
    buildkit.build(context, output, "--export-cache=type=inline")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache=type=registry,ref={name}")

    assert any("echo tools" in step for step in build.cached)


def test_a_local_cache_goes_through_the_registry_and_back(
    server: Server, buildkit: BuildKit, context: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    """A cache that was exported to a folder can be moved into the registry, and imported there."""
    folder = tmp_path / "local"
    buildkit.build(context, f"--export-cache=type=local,dest={folder},mode=max")
    skopeo.copy(f"oci:{folder}:latest", f"docker://{server.host}/ci/app:moved")
    skopeo.copy(f"docker://{server.host}/ci/app:moved", f"oci:{tmp_path}/back:latest")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache={_ref(server.host, 'moved')}")

    assert build.executed == []


def test_a_mounted_secret_is_in_no_stored_byte(
    server: Server, buildkit: BuildKit, base: str, tmp_path: Path
) -> None:
    """What a step reads through a secret mount is not exported, compressed or not."""
    context = tmp_path / "secretive"
    context.mkdir()
    step = "RUN --mount=type=secret,id=key sha256sum /run/secrets/key > /checksum"
    (context / "Dockerfile").write_text(f"FROM {base}\n{step}\n")
    (tmp_path / "key").write_text(_SECRET)
    for compression in ("gzip", "zstd"):
        buildkit.build(
            context,
            f"--secret=id=key,src={tmp_path}/key",
            f"--export-cache={_ref(server.host)},mode=max,compression={compression},"
            "force-compression=true",
        )

    stored = list(_stored_bytes(server.data))

    assert any(b"checksum" in content for content in stored)
    assert not any(_SECRET.encode() in content for content in stored)


def test_the_control_registry_caches_the_same_build(
    buildkit: BuildKit, layout: BaseImage, crane: Crane, tmp_path: Path
) -> None:
    """The scene works with CNCF distribution too, so it shows what it is meant to show."""
    folder, context = tmp_path / "distribution", tmp_path / "context"
    folder.mkdir()
    context.mkdir()
    with Distribution.running(folder) as control:
        base = layout.push(control.host, crane)
        (context / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
        (context / "source").write_text("first\n")
        buildkit.build(context, f"--export-cache={_ref(control.host)},mode=max")
        buildkit.prune()

        build = buildkit.build(context, f"--import-cache={_ref(control.host)}")

    assert build.executed == []


def _stored_bytes(data: Path) -> Iterator[bytes]:
    """Every stored file, as it is and decompressed."""
    for path in data.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield content
        if content.startswith(b"\x1f\x8b"):
            yield gzip.decompress(content)
        if content.startswith(b"\x28\xb5\x2f\xfd"):
            decompressor = zstandard.ZstdDecompressor()
            with decompressor.stream_reader(content, read_across_frames=True) as reader:
                yield reader.read()
