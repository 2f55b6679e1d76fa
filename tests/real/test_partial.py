"""Pulls of no more than what a client lacks of a layer."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.clients import Skopeo, Store
from tests.real.recorder import Recorder
from tests.server import Server

_FILE_BYTES = 50_000


@pytest.fixture
def recorder(server: Server, tmp_path: Path) -> Iterator[Recorder]:
    """What tells the ranges that a client asks the registry for."""
    folder = tmp_path / "recorder"
    folder.mkdir()
    with Recorder.running(folder, server.host) as running:
        yield running


def test_the_missing_chunks_of_a_layer_are_pulled_with_one_request(
    recorder: Recorder, skopeo: Skopeo, store: Store, tmp_path: Path
) -> None:
    """A store that has every other file of a zstd:chunked layer gets the rest as many ranges."""
    before = {f"file{number:02}": _noise(number) for number in range(20)}
    after = {name: _noise(name) if name[-1] in "02468" else before[name] for name in before}
    image = f"{recorder.host}/partial/image:latest"
    for files in (before, after):
        _push(skopeo, image, files, tmp_path)
        store.pull(image)

    [layer] = json.loads(skopeo.inspect(f"docker://{image}", "--raw"))["layers"]
    contents, chunks = recorder.wait_for(f"/v2/partial/image/blobs/{layer['digest']}", 2)
    assert (contents.status, contents.content_type) == (206, "application/octet-stream")
    assert chunks.status == 206
    assert chunks.content_type.startswith("multipart/byteranges;")
    assert len(chunks.ranges.split(",")) >= 10
    assert 10 * _FILE_BYTES < chunks.sent < 11 * _FILE_BYTES
    assert after in store.layers()


def _push(skopeo: Skopeo, image: str, files: dict[str, bytes], folder: Path) -> None:
    """Push an image whose one layer holds these files, in chunks, to `image`."""
    path = folder / "layer.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    skopeo.copy(f"tarball:{path}", f"docker://{image}", "--dest-compress-format=zstd:chunked")


def _noise(seed: int | str) -> bytes:
    return random.Random(seed).randbytes(_FILE_BYTES)
