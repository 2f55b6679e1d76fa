"""BuildKit caches through the registry."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

_MEDIA_TYPES = {
    "image": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "docker-list": "application/vnd.docker.distribution.manifest.list.v2+json",
}

_CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"

_TOC = "containerd.io/snapshot/stargz/toc.digest"
"""The annotation that tells a layer in estargz from one in plain gzip."""

_COMPILE = {
    "[compile 2/3] COPY source /source",
    "[compile 3/3] RUN tr a-z A-Z < /source > /compiled",
}
_TOOLS = "[stage-1 2/4] RUN echo tools > /tools"
_RESULT = {
    "[stage-1 3/4] COPY --from=compile /compiled /compiled",
    "[stage-1 4/4] RUN cat /compiled /tools > /result",
}
_ALL = _COMPILE | {_TOOLS} | _RESULT


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
def test_a_cache_of_all_steps_is_kept_as_it_is_and_makes_every_step_cached(
    server: Server, buildkit: BuildKit, context: Path, crane: Crane, form: str, compression: str
) -> None:
    """A mode=max cache comes back whole on an empty builder, in every form and compression that
    BuildKit has; the registry changes neither."""
    export = f"{_ref(server.host)},mode=max,{_IMAGE_FORMS[form]},compression={compression}"
    buildkit.build(context, f"--export-cache={export},force-compression=true")
    buildkit.prune()

    manifest = json.loads(crane.run("manifest", f"{server.host}/ci/app:cache"))
    layers = _layers(manifest)
    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert manifest["mediaType"] == _MEDIA_TYPES[form]
    assert len(layers) == 6
    assert {_compression(layer) for layer in layers} == {compression}
    assert build.executed == []
    assert set(build.cached) == _ALL


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
@pytest.mark.parametrize("form", _IMAGE_FORMS)
def test_a_cache_of_the_result_makes_every_step_cached(
    server: Server, buildkit: BuildKit, context: Path, crane: Crane, form: str, compression: str
) -> None:
    """A mode=min cache holds the layers of the result only; while that stays as it is, the steps
    that it is made of are cached too."""
    export = f"{_ref(server.host)},mode=min,{_IMAGE_FORMS[form]},compression={compression}"
    buildkit.build(context, f"--export-cache={export},force-compression=true")
    buildkit.prune()

    layers = _layers(json.loads(crane.run("manifest", f"{server.host}/ci/app:cache")))
    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert len(layers) == 4
    assert {_compression(layer) for layer in layers} == {compression}
    assert build.executed == []
    assert set(build.cached) == _ALL


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_step_of_an_earlier_stage_is_cached_by_mode_max_only(
    server: Server, buildkit: BuildKit, context: Path, mode: str
) -> None:
    """When the result changes, mode=min lacks the stage it copies from, and mode=max has it."""
    buildkit.build(context, f"--export-cache={_ref(server.host)},mode={mode}")
    buildkit.prune()
    dockerfile = context / "Dockerfile"
    changed = dockerfile.read_text().replace("/compiled /compiled", "/compiled /moved")
    dockerfile.write_text(changed.replace("cat /compiled", "cat /moved"))

    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert set(build.cached) == ({_TOOLS} if mode == "min" else {_TOOLS} | _COMPILE)


def test_a_changed_source_runs_only_the_steps_below_it(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """What does not depend on the changed file comes from the cache."""
    buildkit.build(context, f"--export-cache={_ref(server.host)},mode=max")
    buildkit.prune()
    (context / "source").write_text("second\n")

    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert build.cached == [_TOOLS]
    assert set(build.executed) == _COMPILE | _RESULT


def test_an_image_and_a_cache_with_the_same_layers_are_pushed_by_one_build(
    server: Server, buildkit: BuildKit, context: Path, crane: Crane
) -> None:
    """BuildKit uploads the same digests twice at once; both the image and the cache are whole."""
    name = f"{server.host}/ci/app:image"
    buildkit.build(
        context,
        f"--output=type=image,name={name},push=true",
        f"--export-cache={_ref(server.host)},mode=max",
    )
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache={_ref(server.host)}")

    assert crane.run("ls", f"{server.host}/ci/app").split() == ["cache", "image"]
    crane.run("validate", "--remote", name)
    assert build.executed == []
    assert set(build.cached) == _ALL


def test_an_unchanged_cache_is_not_uploaded_again(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """HEAD of a blob that is there spares its upload, also to another repository."""
    buildkit.build(context, f"--export-cache={_ref(server.host)},mode=max")
    before = _uploads(server)
    assert before > 1

    buildkit.build(context, f"--export-cache=type=registry,ref={server.host}/other:cache,mode=max")

    assert _uploads(server) - before <= 1  # the config has new times


def test_an_inline_cache_is_found_in_the_image(
    server: Server, buildkit: BuildKit, context: Path
) -> None:
    """A cache in the image's own config is imported from the image."""
    name = f"{server.host}/ci/app:inline"
    output = f"--output=type=image,name={name},push=true"
    buildkit.build(context, output, "--export-cache=type=inline")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache=type=registry,ref={name}")

    assert build.executed == []
    assert set(build.cached) == _ALL


def test_a_local_cache_is_moved_into_the_registry(
    server: Server, buildkit: BuildKit, context: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    """A cache that was exported to a folder, and copied to the registry, is imported from there."""
    folder = tmp_path / "local"
    buildkit.build(context, f"--export-cache=type=local,dest={folder},mode=max")
    skopeo.copy(f"oci:{folder}:latest", f"docker://{server.host}/ci/app:moved")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache={_ref(server.host, 'moved')}")

    assert build.executed == []
    assert set(build.cached) == _ALL


def test_a_cache_is_moved_out_of_the_registry(
    server: Server, buildkit: BuildKit, context: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    """A cache that was exported to the registry, and copied to a folder, is imported from there."""
    folder = tmp_path / "local"
    buildkit.build(context, f"--export-cache={_ref(server.host)},mode=max")
    skopeo.copy(f"docker://{server.host}/ci/app:cache", f"oci:{folder}:latest")
    buildkit.prune()

    build = buildkit.build(context, f"--import-cache=type=local,src={folder}")

    assert build.executed == []
    assert set(build.cached) == _ALL


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_a_mounted_secret_is_in_no_stored_byte(
    server: Server, buildkit: BuildKit, base: str, tmp_path: Path, compression: str
) -> None:
    """What a step reads through a secret mount is not exported, compressed or not."""
    context = tmp_path / "secretive"
    context.mkdir()
    step = "RUN --mount=type=secret,id=key sha256sum /run/secrets/key > /checksum"
    (context / "Dockerfile").write_text(f"FROM {base}\n{step}\n")
    (tmp_path / "key").write_text(_SECRET)
    export = f"{_ref(server.host)},mode=max,compression={compression},force-compression=true"
    buildkit.build(context, f"--secret=id=key,src={tmp_path}/key", f"--export-cache={export}")

    stored = list(_stored_bytes(server.data))

    checksum = hashlib.sha256(_SECRET.encode()).hexdigest()
    assert any(checksum.encode() in content for content in stored)  # what the step wrote is found
    assert not any(_SECRET.encode() in content for content in stored)


def test_the_control_registry_caches_the_same_steps(
    buildkit: BuildKit, layout: BaseImage, crane: Crane, server: Server, tmp_path: Path
) -> None:
    """CNCF distribution and this registry give BuildKit the same hits and the same misses."""
    folder, context = tmp_path / "distribution", tmp_path / "context"
    folder.mkdir()
    context.mkdir()
    hits, misses = [], []
    with Distribution.running(folder) as control:
        for host in (control.host, server.host):
            base = layout.push(host, crane)
            (context / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
            (context / "source").write_text("first\n")
            buildkit.build(context, f"--export-cache={_ref(host)},mode=max")
            buildkit.prune()
            (context / "source").write_text("second\n")
            build = buildkit.build(context, f"--import-cache={_ref(host)}")
            hits.append(set(build.cached))
            misses.append(set(build.executed))
            buildkit.prune()

    assert hits == [{_TOOLS}, {_TOOLS}]
    assert misses == [_COMPILE | _RESULT, _COMPILE | _RESULT]


def _uploads(server: Server) -> int:
    """How many uploads there were. Lines are written after answers, in their order."""
    asked = server.daemon.log.count('"endpoint":"catalog"')
    server.get("/v2/_catalog")
    server.daemon.wait_for(lambda: server.daemon.log.count('"endpoint":"catalog"') > asked or None)
    return server.daemon.log.count('"endpoint":"end-6"')


def _layers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What an image or an index that is a cache lists besides the cache's config."""
    entries = manifest["layers"] if "layers" in manifest else manifest["manifests"]
    return [entry for entry in entries if entry["mediaType"] != _CACHE_CONFIG]


def _compression(layer: dict[str, Any]) -> str:
    """The name that BuildKit's option has for the compression of a layer."""
    if _TOC in layer.get("annotations", {}):
        return "estargz"
    _, found, name = layer["mediaType"].replace("tar.", "tar+").partition("tar+")
    return str(name) if found else "uncompressed"


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
