"""Mistakes with commands, and what commands do without a server."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import Builder, Site, in_folder, in_s3, running_in_folder
from tests.real.seaweed import SeaweedFS
from tests.real.weak_s3 import rclone
from tests.registry.exports import export
from tests.server import Server

_COMMANDS = [
    ("cache", "inspect", "ci/app:cache"),
    ("cache", "drop-source", "ci/app:cache", "abc"),
    ("fsck",),
    ("fsck", "--quarantine"),
    ("stats",),
]
_EXPORT = export("base")


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_commands_make_no_bucket(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Where there is none, that is told, and nothing is made."""
    other = tmp_path / "other"
    other.mkdir()
    for folder in (tmp_path / "none", other):
        said = in_folder(folder).fails(*command)
        assert said == f"storage.url: no server has stored anything in {folder} yet"
    assert list(tmp_path.rglob("*")) == [other]


def test_commands_make_no_bucket_in_s3(seaweed: SeaweedFS, s3_prefix: str, tmp_path: Path) -> None:
    """Below a prefix where nothing is; and what is wrong with S3 is told as by a server."""
    site = in_s3(tmp_path, seaweed, s3_prefix)
    said = site.fails("stats")
    assert said.startswith(f"storage.url: no server has stored anything in s3://{seaweed.bucket}/")

    wrong = Site(site.flags, {**site.environment, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert "the secret key does not fit" in wrong.fails("stats")


def test_a_folder_of_another_layout_is_told(tmp_path: Path) -> None:
    """What a later version wrote is not read."""
    (tmp_path / "format").write_text("99")
    assert "its format is 99" in in_folder(tmp_path).fails("stats")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("cache", "inspect"), "Missing argument 'REF'"),
        (("cache", "inspect", "a:b", "c"), "unexpected extra argument"),
        (("stats", "--bogus"), "--bogus"),
        (("nothing",), "No such command 'nothing'"),
        (("stats", "--cache-sources=0"), "cache.sources: "),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, command: tuple[str, ...], says: str) -> None:
    """With a status that is not 0."""
    assert says in in_folder(tmp_path).fails(*command)


def test_no_server_is_needed(tmp_path: Path) -> None:
    """Commands work on what servers have left."""
    with running_in_folder(tmp_path) as running:
        running.builder.export(_EXPORT)
        site = running.site

    assert site.json("stats")["all"]["cache_tags"] == 1
    assert site.told("fsck").endswith("all is well\n")
    assert "the tag is gone" in site.told("cache", "drop-source", "ci/app:cache", _EXPORT.digest)
    assert site.fails("cache", "inspect", "ci/app:cache") == "there is no tag ci/app:cache"


def test_only_the_server_writes_where_there_are_no_conditional_writes(tmp_path: Path) -> None:
    """Beside it commands read; one that would write is told who the server is. When it has ended,
    the command owns the bucket for a while."""
    (tmp_path / "s3").mkdir()
    with rclone(tmp_path / "s3") as weak:
        site = in_s3(tmp_path, weak, "only")
        with Server.on_s3(tmp_path / "server", weak, "only") as server:
            builder = Builder(server.host)
            builder.export(_EXPORT)
            assert site.json("cache", "inspect", "ci/app:cache")["union"] is not None
            drop = ("cache", "drop-source", "ci/app:cache", str(_EXPORT.digest))
            said = site.fails(*drop)
            assert f"pid {server.daemon.pid} " in said
            assert "stop it first" in said
            assert builder.head() == _EXPORT.digest
            server.daemon.signal(signal.SIGTERM)
            server.daemon.wait_for_end()

        assert "the tag is gone" in site.told(*drop)


def test_commands_start_quickly() -> None:
    """What takes time to import is imported by the command that needs it."""
    heavy = "{'aiohttp', 'botocore', 'prometheus_client', 'sqlite3', 'structlog'}"
    program = f"import sys, cacheproxy.cli.main; print(sorted({heavy} & sys.modules.keys()))"

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert found.stdout == b"[]\n"
