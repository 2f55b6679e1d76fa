"""`cacheproxy fsck`, beside running servers."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cacheproxy.oci.digest import Digest, digest_of
from cacheproxy.storage.layout import Namespace
from tests.cli.running import HASTY, Running, running_in_folder, running_in_s3
from tests.registry.exports import export

_EXPORT = export("base", "tools", "main")
_LAYER = _EXPORT.layers["main"]
_DAMAGED = bytes([_LAYER[0] ^ 1]) + _LAYER[1:]


class Damaging(NamedTuple):
    """A running server, and what overwrites an object of its bucket."""

    running: Running
    overwrite: Callable[[str, bytes], None]


@pytest.fixture(params=["folder", "s3"])
def damaging(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Damaging]:
    if request.param == "folder":
        with running_in_folder(tmp_path) as running:
            data = running.server.data
            yield Damaging(running, lambda key, content: _write(data / key, content))
        return
    seaweed, prefix = (request.getfixturevalue(name) for name in ("seaweed", "s3_prefix"))

    def overwrite(key: str, content: bytes) -> None:
        url = seaweed.signer.presign("PUT", f"/{seaweed.bucket}/{prefix}/{key}")
        put = urllib.request.Request(url, content, method="PUT")
        urllib.request.urlopen(put, timeout=30).close()

    # Without a tier, from which the server would still serve the layer as it was.
    with running_in_s3(tmp_path, seaweed, prefix, "--tier-bytes=1") as running:
        yield Damaging(running, overwrite)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def test_a_flipped_byte_is_found_quarantined_and_pushed_again(damaging: Damaging) -> None:
    """What is damaged is told, with the tag that needs it; when it is out of the way, a builder is
    told that it is missing, and pushes it; then all is well."""
    running, overwrite = damaging
    running.builder.export(_EXPORT)
    well = running.site.told("fsck")
    assert well == "4 blobs (924 B), 1 manifest and 1 tag: all is well\n"
    digest = str(digest_of(_LAYER))
    overwrite(Namespace().blob(Digest(digest)), _DAMAGED)

    *found, summary = running.site.told("fsck", status=1).splitlines()
    assert found == [
        f"blob {digest}: its content is {digest_of(_DAMAGED)}",
        f"tag ci/app:cache: damaged for manifest {_EXPORT.digest}: blob {digest}",
    ]
    assert summary.endswith(": 2 problems")

    output = running.site.run("fsck", "--quarantine", command=HASTY)
    assert output.status == 1
    assert output.stderr == "in 10 minutes 1 damaged object will be quarantined\n"
    *again, moved, summary = output.stdout.splitlines()
    assert again == found
    assert moved == f"blob {digest}: quarantined"
    assert summary.endswith(": 2 problems, 1 quarantined")
    assert running.site.json("stats")["quarantined"] == {"count": 1, "bytes": len(_DAMAGED)}

    blob = f"/blobs/{digest}"
    assert running.builder.ask("GET", blob).status == 404
    assert running.builder.ask("HEAD", blob).status == 404
    assert running.builder.push_blob(_LAYER) == digest
    assert running.builder.ask("GET", blob).body == _LAYER
    assert running.site.told("fsck") == well


def test_the_pace_is_kept(tmp_path: Path) -> None:
    """It takes as long as the rate says, and tells meanwhile how far it is."""
    with running_in_folder(tmp_path) as running:
        for number in range(3):
            running.builder.push_blob(bytes([number]) * 1000)

        said = running.site.told("fsck", "--rate=2000")

    assert said == "3 blobs (2.93 KiB), 0 manifests and 0 tags: all is well\n"


@pytest.mark.parametrize("rate", ["0", "fast", "-1"])
def test_a_rate_that_is_none_is_told(tmp_path: Path, rate: str) -> None:
    """In one line."""
    with running_in_folder(tmp_path) as running:
        assert "--rate" in running.site.fails("fsck", f"--rate={rate}")
