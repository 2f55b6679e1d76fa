"""`cacheproxy stats`, beside running servers."""

from __future__ import annotations

from tests.api.wire import manifest
from tests.cli.running import Builder, Running
from tests.registry.exports import export


def test_what_is_stored_is_counted(running: Running) -> None:
    """By repository and in all, for programs and for people."""
    for each in (export("base", "one"), export("base", "other")):
        running.builder.export(each)
    running.builder.head()
    images = Builder(running.server.host, "ci/images")
    images.push_blob(b"{}")
    images.push_manifest("latest", manifest())
    images.push_blob(b"alone")

    stats = running.site.json("stats")

    assert list(stats["repositories"]) == ["ci/app", "ci/images"]
    cache, image = stats["repositories"].values()
    assert [cache[name] for name in ("tags", "cache_tags", "sources", "unions")] == [1, 1, 2, 1]
    assert cache["manifests"]["count"] == 3
    assert [image[name] for name in ("tags", "cache_tags", "sources", "unions")] == [1, 0, 0, 0]
    assert image["needed"] == {"count": 1, "bytes": 2}
    assert stats["all"]["tags"] == 2
    assert stats["untagged"] == {"count": 1, "bytes": 5}
    assert stats["blobs"]["count"] == stats["all"]["needed"]["count"] + 1
    lines = [line.split() for line in running.site.told("stats").splitlines()]
    assert ["no", "tag", "leads", "to", "1", "5", "B"] in lines
    assert ["ci/images", "1", "0", "0", "0", "1", "1", "2", "B"] in lines
    assert lines[-1][:7] == ["in", "all", "2", "1", "2", "1", "4"]
