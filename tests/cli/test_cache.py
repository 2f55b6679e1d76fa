"""`cacheproxy cache`, beside running servers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.access.doors import htpasswd
from tests.api.wire import manifest
from tests.cli.running import Builder, Running, in_s3, running_in_folder
from tests.real.seaweed import SeaweedFS
from tests.registry.exports import export
from tests.server import QUICK, Server

_MAIN = export("base", "tools", "main")
_BRANCH = export("base", "tools", "branch")
_OTHER = export("base", "lint")


def test_inspect_shows_what_the_server_serves(running: Running) -> None:
    """The digest of the union, its size, and each source with all that it has in it."""
    for each in (_MAIN, _BRANCH):
        running.builder.export(each)
    served = running.builder.head()

    report = running.site.json("cache", "inspect", "ci/app:cache")

    assert report["union"]["digest"] == served
    assert report["union"]["recorded"]
    assert report["union"]["form"] == "image"
    assert report["union"]["has"] == {"records": 5, "results": 4, "layers": 4, "bytes": 43}
    assert [each["digest"] for each in report["sources"]] == [_BRANCH.digest, _MAIN.digest]
    for source in report["sources"]:
        assert source["has"] == source["united"]
        assert (source["left_out"], source["missing_layers"]) == (None, [])


def test_inspect_is_read_by_people(running: Running) -> None:
    """One line for each source, by as much of its digest as `drop-source` takes."""
    for each in (_MAIN, _BRANCH):
        running.builder.export(each)
    served = running.builder.head()

    lines = running.site.told("cache", "inspect", "ci/app:cache").splitlines()

    assert lines[0] == "ci/app:cache"
    assert f"  serves   {served}" in lines
    assert "  holds    5 steps, 4 results, 4 layers, 43 B" in lines
    assert [line.split()[0] for line in lines[-2:]] == [_BRANCH.digest[7:19], _MAIN.digest[7:19]]
    assert [line.split()[-1] for line in lines[-2:]] == ["all", "all"]


def test_inspect_foresees_the_union_that_nobody_has_read(running: Running) -> None:
    """What is said to be served once the tag is read is served then."""
    for each in (_MAIN, _BRANCH):
        running.builder.export(each)

    union = running.site.json("cache", "inspect", "ci/app:cache")["union"]

    assert not union["recorded"]
    assert running.builder.head() == union["digest"]


def test_inspect_goes_by_rules_and_passwords_alone(tmp_path: Path) -> None:
    """By file or by flag. Where it runs there need be no certificate, and no key of tokens."""
    (tmp_path / "users").write_text(htpasswd("ann"))
    (tmp_path / "settings.yaml").write_text(
        f"server: {{workers: 2, tls_cert_file: {tmp_path}/none.pem}}\n"
        f"auth: {{htpasswd_file: {tmp_path}/users, signing_key_file: {tmp_path}/none.key}}\n"
    )
    with running_in_folder(tmp_path) as running:
        running.builder.export(_MAIN)
        inspect = ("cache", "inspect", "ci/app:cache", f"--config={tmp_path}/settings.yaml")

        def left_out(who: str) -> object:
            rule = f"[{{{who}, actions: [push], repositories: ['ci/*']}}]"
            [source] = running.site.json(*inspect, f"--auth-rules={rule}")["sources"]
            return source["left_out"]

        assert left_out("anonymous: true") is None
        assert left_out("users: [ann]") is not None


def test_a_dropped_source_is_not_served_any_more(running: Running) -> None:
    """The running server, which has just served it, makes another union for the next HEAD."""
    for each in (_MAIN, _BRANCH, _OTHER):
        running.builder.export(each)
    before = running.builder.head()

    said = running.site.told("cache", "drop-source", "ci/app:cache", _BRANCH.digest[7:19])

    assert said == f"ci/app:cache is without {_BRANCH.digest}, 2 sources left\n"
    served = running.builder.head()
    assert served not in (None, before)
    report = running.site.json("cache", "inspect", "ci/app:cache")
    assert report["union"]["digest"] == served
    assert [each["digest"] for each in report["sources"]] == [_OTHER.digest, _MAIN.digest]
    for each in (_MAIN, _OTHER):
        running.site.told("cache", "drop-source", "ci/app:cache", each.digest)
    assert running.builder.head() is None


def test_a_dropped_source_is_served_by_no_replica(
    seaweed: SeaweedFS, s3_prefix: str, tmp_path: Path
) -> None:
    """All have served it before, and none does at its next HEAD."""
    first, second = (tmp_path / name for name in ("first", "second"))
    with (
        Server.on_s3(first, seaweed, s3_prefix, command=QUICK) as one,
        Server.on_s3(second, seaweed, s3_prefix, command=QUICK) as other,
    ):
        builders = [Builder(server.host) for server in (one, other)]
        for each in (_MAIN, _BRANCH):
            builders[0].export(each)
        assert len({builder.head() for builder in builders}) == 1

        site = in_s3(tmp_path, seaweed, s3_prefix)
        site.told("cache", "drop-source", "ci/app:cache", _BRANCH.digest)

        assert {builder.head() for builder in builders} == {_MAIN.digest}


def test_what_is_no_cache_is_told(tmp_path: Path) -> None:
    """An image, nothing, no name: one line each, and a status that is not 0."""
    with running_in_folder(tmp_path) as running:
        running.builder.push_blob(b"{}")
        image = running.builder.push_manifest("latest", manifest())
        fails = partial(running.site.fails, "cache", "inspect")

        assert fails("ci/app:latest") == f"ci/app:latest is no cache: it leads to {image}"
        assert fails("ci/app:none") == "there is no tag ci/app:none"
        assert fails("none:none") == "there is no tag none:none"
        assert fails("ci/app") == "'ci/app' is not repository:tag"
        assert fails("CI:app") == "'CI' is not a repository name"
        assert fails("ci/app:-") == "'-' is not a tag"
        drop = running.site.fails("cache", "drop-source", "ci/app:latest", "abc")
        assert drop == f"ci/app:latest is no cache: it leads to {image}"


def test_a_source_that_is_not_clear_is_not_dropped(tmp_path: Path) -> None:
    """None that begins so, or several."""
    with running_in_folder(tmp_path) as running:
        for each in (_MAIN, _BRANCH):
            running.builder.export(each)
        served = running.builder.head()

        drop = ("cache", "drop-source", "ci/app:cache")
        assert running.site.fails(*drop, "0123456789ab").startswith("none of the 2 sources begins")
        said = running.site.fails(*drop, "sha256:")
        assert all(each.digest in said for each in (_MAIN, _BRANCH))
        assert running.builder.head() == served
