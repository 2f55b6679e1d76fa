"""The collector beside a server: processes that work, fail, and end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import cacheproxy
from cacheproxy import upkeep
from cacheproxy.collecting import Collecting
from cacheproxy.config import handed_down, load
from cacheproxy.oci.digest import Digest
from cacheproxy.registry.batches import Batch, read_batch, write_batch
from cacheproxy.storage.bucket import Bucket, Head
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from tests.api.wire import manifest
from tests.cli.running import (
    Builder,
    Running,
    age_batches,
    running_in_folder,
    running_in_s3,
)
from tests.real.process import Daemon
from tests.real.weak_s3 import rclone
from tests.s3.flows import until
from tests.server import SERVE, Server, serving
from tests.storage.s3_buckets import opened

_SOON = ("--collection-interval-seconds=0.2", "--collection-lease-seconds=0.001")
_BATCH = f"{Namespace().batches()}test"
_DOOMED = write_batch(Batch((f"{Namespace().blobs()}sha256/ab/gone",), 0.0, True))
"""What a collector leaves that dies while it deletes; the next one waits before it goes on."""

_READING = """\
#!{python}
import sys
[config] = [each for each in sys.argv if each.startswith("--config=")]
with open(int(config.rpartition("/")[2]), "rb") as file, open("{read}", "wb") as read:
    read.write(file.read())
print("{{}}")
"""
"""What is started instead of Python, and reads a descriptor that it has inherited as it is."""


@pytest.fixture(params=["folder", "s3"])
async def collected(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Running, Bucket]]:
    """A server that collects again and again, and its bucket."""
    if request.param == "folder":
        with running_in_folder(tmp_path, *_SOON) as running:
            yield running, FolderBucket(str(running.server.data))
        return
    seaweed, prefix = (request.getfixturevalue(name) for name in ("seaweed", "s3_prefix"))
    with running_in_s3(tmp_path, seaweed, prefix, *_SOON) as running:
        async with opened(seaweed, prefix=f"{prefix}/") as bucket:
            yield running, bucket


async def test_a_server_collects_when_it_is_due(collected: tuple[Running, Bucket]) -> None:
    """Garbage is condemned by one cycle and deleted by another; what a tag needs stays."""
    running, bucket = collected
    builder, daemon = running.builder, running.server.daemon
    garbage, config = builder.push_blob(b"garbage"), _push_image(builder)

    daemon.wait_for_log('"condemned":1,.*"event":"collected"')
    await age_batches(bucket)
    daemon.wait_for_log('"deleted":1,"event":"collected"')

    assert await bucket.head(Namespace().blob(Digest(garbage))) is None
    assert await bucket.head(Namespace().blob(Digest(config))) == Head(2)
    assert not [listed async for listed in bucket.list(Namespace().batches())]


def test_a_collector_has_the_settings_of_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment says something else, too."""
    monkeypatch.setenv("CACHEPROXY_COLLECTION__LEASE_SECONDS", "1e9")
    monkeypatch.setenv("CACHEPROXY_STORAGE__URL", "file:///nowhere")
    with running_in_folder(tmp_path, *_SOON) as running:
        running.builder.push_blob(b"garbage")

        running.server.daemon.wait_for_log('"condemned":1,.*"event":"collected"')


def test_a_collector_has_the_settings_of_the_environment(tmp_path: Path) -> None:
    """With no flag and no file."""
    settings = {
        "STORAGE__URL": f"file://{tmp_path}/data",
        "SERVER__LISTEN": "127.0.0.1:0",
        "COLLECTION__INTERVAL_SECONDS": "0.2",
        "COLLECTION__LEASE_SECONDS": "0.001",
    }
    ours = {f"CACHEPROXY_{name}": value for name, value in settings.items()}
    log = tmp_path / "server.log"
    with Daemon.running(SERVE, environment=os.environ | ours, log=log) as daemon:
        Builder(daemon.wait_for_log(r'"listen":"([^"]+)"')[1]).push_blob(b"garbage")

        daemon.wait_for_log('"condemned":1,.*"event":"collected"')
        daemon.kill_all()


async def test_a_collector_reads_its_settings_from_their_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /dev/fd is a duplicate of what was written to, as this one reads it, too."""
    python, read = tmp_path / "python", tmp_path / "read"
    python.write_text(_READING.format(python=sys.executable, read=read))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    config, data = load({}, {"HOME": str(tmp_path)}), tmp_path / "data"
    data.mkdir()

    await Collecting(config, FolderBucket(str(data)), Namespace()).finish()

    assert handed_down(str(read)) == config


def test_a_collector_is_of_the_code_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is not installed, but run where it lies; what else lies there it does not have."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "cacheproxy").symlink_to(Path(cacheproxy.__file__).parent)
    monkeypatch.chdir(checkout)
    # The same Python without what is installed for development, but with all that this needs.
    environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    command = (
        str(Path(sys.executable).resolve()),
        "-m",
        "cacheproxy",
        "serve",
        "--listen=127.0.0.1:0",
    )
    flags = (f"--storage=file://{tmp_path}/data", *_SOON)
    log = tmp_path / "server.log"
    with Daemon.running((*command, *flags), environment=environment, log=log) as daemon:
        host = daemon.wait_for_log(r'"listen":"([^"]+)"')[1]
        (checkout / "yaml.py").write_text("raise SystemExit('this is not to be imported')")
        Builder(host).push_blob(b"garbage")

        ended = daemon.wait_for_log('"condemned":1,.*"event":"collected"|"event":"chore_failed"')
        assert "chore_failed" not in ended[0]
        daemon.kill_all()


def test_workers_collect_too(tmp_path: Path) -> None:
    """They share the turn, as replicas do."""
    with running_in_folder(tmp_path, *_SOON, "--workers=2") as running:
        running.builder.push_blob(b"garbage")

        running.server.daemon.wait_for_log('"condemned":1,.*"event":"collected"')


async def test_a_server_that_alone_may_write_collects(tmp_path: Path) -> None:
    """In a bucket without conditional writes, its collector may write as well: the two share the
    file by which they keep conditions."""
    (tmp_path / "s3").mkdir()
    with (
        rclone(tmp_path / "s3") as weak,
        Server.on_s3(tmp_path / "server", weak, "only", *_SOON) as server,
    ):
        Builder(server.host).push_blob(b"garbage")
        server.daemon.wait_for_log('"condemned":1,.*"event":"collected"')

        async with opened(weak, prefix="only/") as bucket:
            collector = await _slow_collector(server, bucket)
        assert _files(server.daemon.pid) & _files(collector)


def test_a_collector_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    """The server says why, and serves on."""
    with running_in_folder(tmp_path, *_SOON) as running:
        builder, server = running.builder, running.server
        _push_image(builder)
        [tag] = server.data.glob("default/repositories/ci/app/_tags/*")
        record = tag.read_bytes()
        tag.write_bytes(b"damaged")
        line = server.daemon.wait_for_log('.*"event":"chore_failed","level":"warning".*')[0]
        assert json.loads(line)["chore"] == "Upkeep._collect"
        assert "damaged" in json.loads(line)["detail"]

        tag.write_bytes(record)
        told = server.daemon.log.count('"event":"collected"')
        server.daemon.wait_for(
            lambda: server.daemon.log.count('"event":"collected"') > told or None
        )
        assert builder.head("v1") is not None


async def test_a_collector_that_is_killed_is_told(tmp_path: Path) -> None:
    """As by a machine without memory, which it is the first to be killed by."""
    async with _collecting(tmp_path) as (server, collector):
        assert os.getpriority(os.PRIO_PROCESS, collector) == 19
        assert Path(f"/proc/{collector}/oom_score_adj").read_text() == "1000\n"
        os.kill(collector, signal.SIGKILL)

        server.daemon.wait_for_log("the collector has ended with the status -9")
        server.get("/v2/")


async def test_a_server_that_ends_ends_its_collector(tmp_path: Path) -> None:
    """It is not left behind, and leaves its turn to the next one."""
    async with _collecting(tmp_path) as (server, collector):
        server.daemon.signal(signal.SIGTERM)

        assert server.daemon.wait_for_end() == 0
        assert not Path(f"/proc/{collector}").exists()
        assert _holder(server) == ""
        assert "Traceback" not in server.daemon.log


async def test_a_collector_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """And leaves its turn to the next one."""
    async with _collecting(tmp_path) as (server, collector):
        server.daemon.signal(signal.SIGKILL)

        await until(lambda: not Path(f"/proc/{collector}").exists())
        assert _holder(server) == ""


async def test_what_a_dead_collector_was_deleting_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not the server collects by itself."""
    monkeypatch.setattr(upkeep, "_CONDEMNED_SECONDS", 0.05)
    data = tmp_path / "data"
    data.mkdir()
    await FolderBucket(str(data)).put(_BATCH, _DOOMED)
    async with serving(data, storage__url=f"file://{data}", collection__interval_seconds=0):
        await until(lambda: read_batch((data / _BATCH).read_bytes()).collector != "")


@asynccontextmanager
async def _collecting(folder: Path) -> AsyncIterator[tuple[Server, int]]:
    """A server, and the process of its collector, which takes its time."""
    with Server.running(folder, *_SOON) as server:
        yield server, await _slow_collector(server, FolderBucket(str(server.data)))


async def _slow_collector(server: Server, bucket: Bucket) -> int:
    """The process of a collector that waits, as there is something doomed."""
    await bucket.put(_BATCH, _DOOMED)
    while not read_batch(await _content(bucket, _BATCH)).collector:
        await asyncio.sleep(0.01)
    children = Path(f"/proc/{server.daemon.pid}/task/{server.daemon.pid}/children")
    return int(children.read_text())


async def _content(bucket: Bucket, key: str) -> bytes:
    stored = await bucket.read(key)
    assert stored is not None
    return stored.data


def _files(pid: int) -> set[int]:
    """The inodes of the regular files that a process has open, besides where it writes lines."""
    opened = [path for path in Path(f"/proc/{pid}/fd").iterdir() if int(path.name) > 2]
    return {path.stat().st_ino for path in opened if path.is_file()}


def _holder(server: Server) -> str:
    """Whose turn it is to collect, if anybody's."""
    record = server.data / Namespace().collector()
    return str(json.loads(record.read_bytes())["collector"])


def _push_image(builder: Builder) -> str:
    """Push an image, and return the digest of its config."""
    config = builder.push_blob(b"{}")
    builder.push_manifest("v1", manifest())
    return config
