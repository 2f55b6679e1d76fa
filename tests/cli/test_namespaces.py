"""Commands where there are two namespaces."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.wire import manifest
from tests.cli.running import HASTY, Builder, Running, Site, running_in_folder
from tests.registry.exports import export

_EXPORTS = [export("base", "one"), export("base", "other")]
_FLAG = "--storage-namespaces=[{name: blue, repositories: ['blue/*']}]"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A server with a cache in the namespace blue, and an image and garbage in the default one."""
    with running_in_folder(tmp_path, _FLAG) as running:
        builder = Builder(running.server.host, "blue/app")
        for each in _EXPORTS:
            builder.export(each)
        running.builder.push_blob(b"{}")
        running.builder.push_manifest("latest", manifest())
        running.builder.push_blob(b"garbage")
        site = Site((*running.site.flags, _FLAG))
        yield Running(running.server, site, builder)


def _age(running: Running) -> None:
    """Let all blobs have been pushed days ago."""
    for path in running.server.data.glob("*/blobs/*/*/*"):
        os.utime(path, (time.time() - 3 * 86400.0,) * 2)


def test_what_is_stored_is_counted_by_namespace(running: Running) -> None:
    """For programs and for people."""
    stats = running.site.json("stats")

    assert {name: list(each["repositories"]) for name, each in stats.items()} == {
        "blue": ["blue/app"],
        "default": ["ci/app"],
    }
    assert stats["default"]["untagged"] == {"count": 1, "bytes": 7}
    blue, default = running.site.told("stats").split("\n\nnamespace default\n")
    assert blue.startswith("namespace blue\n")
    assert ("blue/app" in blue, "ci/app" in blue) == (True, False)
    assert ("blue/app" in default, "ci/app" in default) == (False, True)


def test_each_namespace_is_collected(running: Running) -> None:
    """What is garbage is found where it is."""
    _age(running)
    report = running.site.json("gc", "--dry-run")
    assert {name: each["condemned"] for name, each in report.items()} == {"blue": 0, "default": 1}

    told = running.site.told("gc").split("\n\n")
    assert [lines.splitlines()[0] for lines in told] == ["namespace blue", "namespace default"]
    assert "condemned  1 object, 7 B" in told[1]


def test_a_namespace_that_cannot_be_collected_is_in_nobodys_way(running: Running) -> None:
    """The others are; what is wrong is told, with status 1."""
    _age(running)
    (running.server.data / "blue/repositories/blue/app/_tags/cache").write_bytes(b"{")
    output = running.site.run("gc")

    assert output.status == 1
    assert "namespace blue\nfailed     the tag is damaged in the bucket\n" in output.stdout
    assert "condemned  1 object, 7 B" in output.stdout
    [line] = output.stderr.splitlines()
    assert line.startswith("cacheproxy: storage.url: the tag is damaged in the bucket")


def test_each_namespace_is_checked(running: Running) -> None:
    """What is wrong is told below its name; the status is that of all."""
    told = running.site.told("fsck")
    assert [line for line in told.splitlines() if not line[0].isdigit()] == [
        "namespace blue",
        "namespace default",
    ]
    [garbage] = [
        path
        for path in running.server.data.glob("default/blobs/*/*/*")
        if path.read_bytes() == b"garbage"
    ]
    garbage.write_bytes(b"damaged")

    output = running.site.run("fsck", "--quarantine", command=HASTY)
    assert output.status == 1
    blue, default = output.stdout.split("namespace default\n")
    assert blue.endswith("all is well\n")
    assert "1 problem, 1 quarantined" in default
    assert len(list(running.server.data.glob("default/quarantine/blobs/*/*/*"))) == 1


def test_a_cache_is_looked_at_where_it_is(running: Running) -> None:
    """Inspected, and mended, in the namespace of its repository."""
    sources = running.site.json("cache", "inspect", "blue/app:cache")["sources"]
    assert len(sources) == 2
    assert all(source["has"]["layers"] == 2 for source in sources)

    dropped = running.site.told("cache", "drop-source", "blue/app:cache", sources[0]["digest"])
    assert "1 source left" in dropped
    assert len(running.site.json("cache", "inspect", "blue/app:cache")["sources"]) == 1
