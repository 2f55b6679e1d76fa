"""`cacheproxy gc` beside a running server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheproxy.oci.digest import Digest
from cacheproxy.storage.layout import Namespace
from tests.api.wire import manifest
from tests.cli.running import Running, Site, age_batches, running_in_folder, running_in_s3
from tests.real.seaweed import SeaweedFS
from tests.storage.s3_buckets import opened

_DAYS = 3 * 86400.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A registry with a blob that was pushed days ago, and to which nothing leads."""
    with running_in_folder(tmp_path) as running:
        digest = running.builder.push_blob(b"garbage")
        path = running.server.data / f"default/blobs/sha256/{digest[7:9]}/{digest[7:]}"
        os.utime(path, (time.time() - _DAYS,) * 2)
        yield running


def _blobs(running: Running) -> list[Path]:
    return list((running.server.data / "default/blobs").glob("*/*/*"))


def _batches(running: Running) -> list[Path]:
    return list((running.server.data / "default/gc/batches").glob("[!.]*"))


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(running: Running) -> None:
    """Nothing is evicted or condemned."""
    report = running.site.json("gc", "--dry-run")

    assert (report["condemned"], report["condemned_bytes"]) == (1, 7)
    assert _batches(running) == []


@pytest.mark.parametrize("settings", ["", "log: {level: info}\n"])
def test_a_server_has_to_hand_down_its_settings(
    running: Running, tmp_path: Path, settings: str
) -> None:
    """All of them: with defaults, its collector would be at work where data is by default."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/cacheproxy").symlink_to(running.server.data)
    (tmp_path / "handed.yaml").write_text(settings)
    at_home = {**os.environ, "XDG_DATA_HOME": f"{tmp_path}/home"}
    site = Site(("--for-server=cycle", f"--config={tmp_path}/handed.yaml"), at_home)

    assert site.fails("gc").startswith("the server has not handed down all of its settings: no ")
    assert _batches(running) == []


def test_what_nothing_leads_to_is_condemned_and_still_there(running: Running) -> None:
    """The next run finds it waiting."""
    assert "condemned  1 object, 7 B" in running.site.told("gc")
    assert "waiting    1 object" in running.site.told("gc")

    assert len(_blobs(running)) == 1


def test_what_was_condemned_for_long_is_deleted(running: Running) -> None:
    """Nobody has asked for it meanwhile."""
    running.site.told("gc")
    [batch] = _batches(running)
    record = json.loads(batch.read_bytes())
    batch.write_text(json.dumps(record | {"since": record["since"] - _DAYS}))

    assert "deleted    1 object" in running.site.told("gc")
    assert _blobs(running) == _batches(running) == []


def test_a_policy_evicts_tags(running: Running) -> None:
    """Those of images beyond the number that is to stay."""
    for number in range(3):
        config = running.builder.push_blob(b"%d" % number)
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/json", "digest": config, "size": 1},
            "layers": [],
        }
        running.builder.push_manifest(f"v{number}", json.dumps(manifest).encode())

    told = running.site.told("gc", "--retention-image-tags=1")

    assert "evicted    2 tags, 0 sources of caches" in told
    assert [running.builder.head(f"v{number}") is None for number in range(3)] == [
        True,
        True,
        False,
    ]


async def test_it_works_beside_a_running_server_in_s3(
    seaweed: SeaweedFS, s3_prefix: str, tmp_path: Path
) -> None:
    """What is not needed is condemned, then deleted; what a tag needs is served on."""
    gc = ("gc", "--collection-lease-seconds=0.001")
    with running_in_s3(tmp_path, seaweed, s3_prefix, "--collection-interval-seconds=0") as running:
        garbage, needed = map(running.builder.push_blob, (b"garbage", b"{}"))
        running.builder.push_manifest("v1", manifest())
        while not running.site.json(*gc)["condemned"]:
            pass  # it must be older than a lease, and the bucket's clock counts seconds
        assert running.site.json(*gc)["waiting"] == 1
        async with opened(seaweed, prefix=f"{s3_prefix}/") as bucket:
            await age_batches(bucket)
            assert running.site.json(*gc)["deleted"] == 1

            assert await bucket.head(Namespace().blob(Digest(garbage))) is None
        assert running.builder.ask("GET", "/manifests/v1").body == manifest()
        assert running.builder.ask("GET", f"/blobs/{needed}").body == b"{}"
        assert running.builder.push_blob(b"more")
