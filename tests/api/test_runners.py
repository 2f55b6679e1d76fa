"""What is counted of each runner, asking as BuildKit does."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from cacheproxy import app
from cacheproxy.access.policy import Action
from cacheproxy.buildkit.manifest import CacheManifest, read_manifest
from cacheproxy.errors import Denied, Unavailable
from cacheproxy.oci.digest import Digest
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.registry.sources import Pusher, pushed
from cacheproxy.registry.tags import TagRecord, Tags
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from tests.api.test_access import Refusing
from tests.api.wire import MANIFEST, begin, digest, manifest
from tests.exposition import Counted, counted_in
from tests.fakes import RemoteBucket
from tests.registry.exports import APP, TAG, Export, export
from tests.server import serving

Client = aiohttp.ClientSession
Labels = dict[str, str]

_RESOLVE = {"Accept": f"application/vnd.docker.distribution.manifest.v2+json, {MANIFEST}, */*"}
_PUSH = _FETCH = {"Accept": f"{MANIFEST}, */*"}
_CONFIG = {"Accept": "application/vnd.buildkit.cacheconfig.v0, */*"}
_TAG = "/v2/ci/app/manifests/cache"
_OTHER = "/v2/ci/app/manifests/other"
_IMAGE = "/v2/ci/app/manifests/image"

ONE, TWO = export("a", "b"), export("a", "c")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(tmp_path / "data", clients__header="X-Runner") as session:
        yield session


@pytest.fixture
def remote(tmp_path: Path) -> RemoteBucket:
    """A bucket that is not a folder of the server's machine."""
    (tmp_path / "bucket").mkdir()
    return RemoteBucket(FolderBucket(str(tmp_path / "bucket")))


class Runner:
    """A builder behind one name."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = {"X-Runner": name}

    async def export(self, one: Export, tag: str = _TAG) -> None:
        """Blobs that are not there, then the manifest unless the tag leads to it."""
        for content in (*one.layers.values(), one.written.config):
            path = f"/v2/ci/app/blobs/{digest(content)}"
            if await self.ask("HEAD", path) == 404:
                await self.push(content)
        async with self._client.head(tag, headers=self._name | _PUSH) as answer:
            if answer.headers.get("Docker-Content-Digest") == one.digest:
                return
        headers = self._name | {"Content-Type": one.written.media_type}
        body = io.BytesIO(one.written.manifest)
        async with self._client.put(tag, data=body, headers=headers) as answer:
            assert answer.status == 201

    async def push(self, content: bytes) -> None:
        path = f"/v2/ci/app/blobs/uploads/?digest={digest(content)}"
        async with self._client.post(path, data=content, headers=self._name) as answer:
            assert answer.status == 201

    async def push_image(self) -> None:
        headers = self._name | {"Content-Type": MANIFEST}
        async with self._client.put(_IMAGE, data=manifest(), headers=headers) as answer:
            assert answer.status == 201

    async def import_(self) -> list[str]:
        """The cache's manifest and config; returns the digests of its layers."""
        async with self._client.head(_TAG, headers=self._name | _RESOLVE) as answer:
            if answer.status == 404:
                return []
            found = answer.headers["Docker-Content-Digest"]
        path = f"/v2/ci/app/manifests/{found}"
        async with self._client.get(path, headers=self._name | _FETCH) as answer:
            about = read_manifest(await answer.read())
        assert isinstance(about, CacheManifest)
        await self.ask("GET", f"/v2/ci/app/blobs/{about.config_digest}", _CONFIG)
        return list(about.descriptors)

    async def ask(self, method: str, path: str, headers: Labels | None = None) -> int:
        asked = self._name | (headers or {})
        async with self._client.request(method, path, headers=asked) as answer:
            await answer.read()
            return answer.status


async def _counted(client: Client, name: str, *by: str) -> Counted:
    async with client.get("/metrics") as answer:
        return counted_in(await answer.text(), name, *by)


async def test_exports_that_change_something_are_told_from_those_that_do_not(
    client: Client,
) -> None:
    """That the tag has the export already may be seen by a second push of the same."""
    one, two = Runner(client, "one"), Runner(client, "two")
    await one.export(ONE)
    await two.export(TWO)
    await two.export(TWO)

    counted = await _counted(client, "cacheproxy_cache_exports_total", "client", "result")
    assert counted == {("one", "stored"): 1, ("two", "stored"): 1, ("two", "unchanged"): 1}


async def test_an_export_of_what_was_imported_changes_nothing(client: Client) -> None:
    """BuildKit writes into the manifest where it has layers from: the config is what counts."""
    one, again = Runner(client, "one"), json.loads(ONE.written.manifest)
    for layer in again["layers"]:
        layer["annotations"]["containerd.io/distribution.source.localhost"] = "ci/app"
    written = msgspec.structs.replace(ONE.written, manifest=json.dumps(again).encode())
    await one.export(ONE)
    await one.export(Export(written, ONE.layers))

    counted = await _counted(client, "cacheproxy_cache_exports_total", "client", "result")
    assert counted == {("one", "stored"): 1, ("one", "unchanged"): 1}


async def test_an_export_that_is_not_pushed_has_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it was pushed to another server: then that one tells of it."""
    monkeypatch.setattr("cacheproxy.app._SETTLE_SECONDS", 0.01)
    monkeypatch.setattr("cacheproxy.registry.caches._CLOCKS_NANOSECONDS", 0)
    async with serving(tmp_path / "data", clients__header="X-Runner") as client:
        elsewhere, same = Runner(client, "elsewhere"), Runner(client, "same")
        for runner, path in ((elsewhere, _TAG), (same, _OTHER)):
            await runner.export(ONE, path)
            await runner.export(ONE, path)  # the tag has it: there is a look, and no push
        await _push_elsewhere(tmp_path / "data", TWO)

        monkeypatch.setattr("cacheproxy.exchanges._PUSH_NANOSECONDS", 0)
        counted: Counted = {}
        while ("same", "unchanged") not in counted:  # it looks now and then
            counted = await _counted(client, "cacheproxy_cache_exports_total", "client", "result")

    stored = {("elsewhere", "stored"): 1, ("same", "stored"): 1}
    assert counted == stored | {("same", "unchanged"): 1}


async def _push_elsewhere(data: Path, one: Export) -> None:
    """Change the record of the tag as a server does that an export is pushed to."""

    def change(old: TagRecord | None) -> TagRecord | None:
        if old is None:  # it has not looked yet
            return None
        sources = pushed(old.sources, one.digest, time.time_ns(), Pusher("elsewhere"))
        return msgspec.structs.replace(old, sources=sources)

    await Tags(FolderBucket(str(data)), Namespace()).change(APP, TAG, change)


async def test_an_import_is_found_or_not(client: Client) -> None:
    """A look at the tag by who exports to it is no import."""
    one, two = Runner(client, "one"), Runner(client, "two")
    await one.import_()
    await one.export(ONE)
    await two.import_()

    counted = await _counted(client, "cacheproxy_cache_imports_total", "client", "result")
    assert counted == {("one", "not_found"): 1, ("two", "found"): 1}


async def test_what_another_runner_has_pushed_is_a_hit_across_runners(client: Client) -> None:
    """A cache, a layer that is fetched, and one that need not be pushed; not one's own."""
    one, two = Runner(client, "one"), Runner(client, "two")
    await one.export(ONE)
    for runner in (one, two):
        for layer in await runner.import_():
            await runner.ask("GET", f"/v2/ci/app/blobs/{layer}")
    await two.export(TWO)

    counted = await _counted(client, "cacheproxy_cross_client_hits_total", "client", "kind")
    assert counted == {("two", "cache_manifest"): 1, ("two", "config"): 1, ("two", "blob"): 3}


async def test_a_union_is_a_hit_across_runners_for_all_whose_it_is(client: Client) -> None:
    """For in it is the work of another one as well."""
    one, two = Runner(client, "one"), Runner(client, "two")
    await one.export(ONE)
    await two.export(TWO)
    await one.import_()
    await two.import_()

    counted = await _counted(client, "cacheproxy_cross_client_hits_total", "client", "kind")
    assert counted[("one", "cache_manifest")] == counted[("two", "cache_manifest")] == 1


async def test_an_image_is_a_hit_across_runners_when_it_is_fetched(client: Client) -> None:
    """Once, though its tag is resolved before."""
    one, two = Runner(client, "one"), Runner(client, "two")
    await one.push_image()
    await two.ask("HEAD", _IMAGE, _RESOLVE)
    await two.ask("GET", _IMAGE, _FETCH)

    counted = await _counted(client, "cacheproxy_cross_client_hits_total", "client", "kind")
    assert counted == {("two", "manifest"): 1}


async def test_clients_without_a_name_are_not_told_apart(client: Client) -> None:
    """So none of them is known to use what another one has pushed."""
    for _ in range(2):
        runner = Runner(client, "")
        await runner.export(ONE)
        await runner.import_()

    assert await _counted(client, "cacheproxy_cross_client_hits_total", "client") == {}
    counted = await _counted(client, "cacheproxy_cache_imports_total", "client", "result")
    assert counted == {("unknown", "found"): 2}


async def test_bytes_that_need_not_be_uploaded_are_counted(client: Client) -> None:
    """Those of blobs of which a HEAD has told that they are there."""
    await Runner(client, "one").export(ONE)
    await Runner(client, "two").export(TWO)

    shared = len(ONE.layers["a"])
    avoided = await _counted(client, "cacheproxy_client_avoided_uploads_total", "client")
    bytes_ = await _counted(client, "cacheproxy_client_avoided_upload_bytes_total", "client")
    assert (avoided, bytes_) == ({("two",): 1}, {("two",): shared})


async def test_looks_are_counted_by_kind_operation_and_result(client: Client) -> None:
    """Also by who looked."""
    runner = Runner(client, "one")
    await runner.export(ONE)
    await runner.import_()
    await runner.ask("GET", f"/v2/ci/app/blobs/{digest(b'absent')}")

    counted = await _counted(client, "cacheproxy_cache_requests_total", "kind", "op", "result")
    assert counted == {
        ("blob", "head", "miss"): 3,  # two layers, and the config, asked for without its type
        ("manifest", "head", "miss"): 1,
        ("cache_manifest", "head", "hit"): 1,
        ("cache_manifest", "get", "hit"): 1,
        ("config", "get", "hit"): 1,
        ("blob", "get", "miss"): 1,
    }
    by_client = await _counted(client, "cacheproxy_client_cache_requests_total", "client", "result")
    assert by_client == {("one", "miss"): 5, ("one", "hit"): 3}


async def test_bytes_that_are_sent_are_counted_by_kind(client: Client) -> None:
    """Whole, or in parts."""
    runner = Runner(client, "one")
    await runner.push(b"0123456789")
    path = f"/v2/ci/app/blobs/{digest(b'0123456789')}"
    await runner.ask("GET", path)
    await runner.ask("GET", path, {"Range": "bytes=0-3"})

    assert await _counted(client, "cacheproxy_cache_bytes_total", "kind", "result", "tier") == {
        ("blob", "hit", "disk"): 14
    }
    assert await _counted(client, "cacheproxy_client_cache_bytes_total", "client") == {("one",): 14}


async def test_a_blob_that_is_fetched_first_is_a_fill_and_then_a_hit(
    tmp_path: Path, remote: RemoteBucket
) -> None:
    """By the tier that it was found in; who pushed it is known from there too."""
    key = Namespace().blob(Digest(digest(b"content")))
    await remote.put(key, b"content")
    remote.pushers[key] = "one"
    async with serving(tmp_path / "data", bucket=remote, clients__header="X-Runner") as client:
        two, path = Runner(client, "two"), f"/v2/ci/app/blobs/{digest(b'content')}"
        counted: Counted = {}
        asked = 0
        while ("get", "hit", "disk") not in counted:  # it enters the tier behind the last byte
            await two.ask("GET", path)
            asked += 1
            name = "cacheproxy_cache_requests_total"
            counted = await _counted(client, name, "op", "result", "tier")
        across = await _counted(client, "cacheproxy_cross_client_hits_total", "client")

    assert counted[("get", "fill", "s3")] == counted[("get", "hit", "disk")] == 1
    assert across == {("two",): asked}


async def test_who_asks_while_another_fetches_shares_the_fetch(
    tmp_path: Path, remote: RemoteBucket
) -> None:
    """One fill, however many ask; the others are coalesced."""
    await remote.put(Namespace().blob(Digest(digest(b"content"))), b"content")
    remote.door.clear()
    async with serving(tmp_path / "data", bucket=remote) as client:
        runner, path = Runner(client, "one"), f"/v2/ci/app/blobs/{digest(b'content')}"
        asking = [asyncio.create_task(runner.ask("GET", path)) for _ in range(3)]
        running: Counted = {}
        while running != {("end-2",): 3}:
            running = await _counted(client, "cacheproxy_http_requests_in_progress", "endpoint")
        remote.door.set()
        await asyncio.gather(*asking)
        counted = await _counted(client, "cacheproxy_cache_requests_total", "result", "tier")

    assert counted == {("fill", "s3"): 1, ("coalesced", "s3"): 2}


async def test_a_blob_that_cannot_be_fetched_is_an_error(
    tmp_path: Path, remote: RemoteBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no miss: it may well be there."""

    async def fail(key: str, part: ByteRange | None = None) -> None:
        raise Unavailable("the bucket is away")

    monkeypatch.setattr(remote, "open", fail)
    async with serving(tmp_path / "data", bucket=remote) as client:
        async with client.get(f"/v2/ci/app/blobs/{digest(b'content')}") as answer:
            assert answer.status == 503
        counted = await _counted(client, "cacheproxy_cache_requests_total", "kind", "result")

    assert counted == {("blob", "error"): 1}


async def test_an_address_is_named_by_its_network_as_a_trusted_proxy_tells_it(
    tmp_path: Path,
) -> None:
    """The name is shown, and no address."""
    async with serving(
        tmp_path / "data",
        clients__networks='{"eu": ["10.1.0.0/16"]}',
        clients__trusted_proxies='["127.0.0.1/32"]',
    ) as client:
        for address in ("10.1.2.3", "10.2.2.3"):
            headers = {"X-Forwarded-For": address}
            async with client.head(f"/v2/ci/app/blobs/{digest(b'x')}", headers=headers) as answer:
                assert answer.status == 404
        counted = await _counted(client, "cacheproxy_client_cache_requests_total", "client")
        async with client.get("/metrics") as answer:
            text = await answer.text()

    assert counted == {("eu",): 1, ("unknown",): 1}
    assert not re.search(r"10\.[12]\.2\.3|127\.0\.0\.1", text)


async def test_what_the_tier_has_and_what_it_has_evicted_is_told(
    tmp_path: Path, remote: RemoteBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blobs and in their bytes, beside the limit."""
    monkeypatch.setattr(app, "_MEASURE_SECONDS", 0.01)
    async with serving(tmp_path / "data", bucket=remote, tier__bytes=100) as client:
        runner = Runner(client, "one")
        await runner.push(b"a" * 60)
        await runner.push(b"b" * 39)  # above the high mark of 95
        told: Counted = {}
        while told != {("cacheproxy_tier_bytes",): 39, ("cacheproxy_tier_objects",): 1}:
            told = {
                (name,): sum((await _counted(client, name)).values())
                for name in ("cacheproxy_tier_bytes", "cacheproxy_tier_objects")
            }
        limit = await _counted(client, "cacheproxy_tier_limit_bytes", "tier")
        evicted = await _counted(client, "cacheproxy_tier_evictions_total", "tier", "reason")
        size = await _counted(client, "cacheproxy_tier_evicted_bytes_total", "tier", "reason")

    assert limit == {("disk",): 100}
    assert (evicted, size) == ({("disk", "space"): 1}, {("disk", "space"): 60})


async def test_what_the_bucket_was_asked_is_remembered(
    tmp_path: Path, remote: RemoteBucket
) -> None:
    """The second look costs it nothing."""
    await remote.put(Namespace().blob(Digest(digest(b"content"))), b"content")
    async with serving(tmp_path / "data", bucket=remote) as client:
        for _ in range(2):
            await Runner(client, "one").ask("HEAD", f"/v2/ci/app/blobs/{digest(b'content')}")
        counted = await _counted(client, "cacheproxy_cache_requests_total", "op", "result", "tier")

    assert counted == {("head", "hit", "s3"): 1, ("head", "hit", "memory"): 1}


async def test_uploads_are_counted_by_how_they_ended(client: Client) -> None:
    """What is stored, what is mounted, and what has another digest than was said."""
    runner = Runner(client, "one")
    await runner.push(b"content")
    await runner.ask("POST", f"/v2/ci/b/blobs/uploads/?mount={digest(b'content')}&from=ci/app")
    path = f"/v2/ci/app/blobs/uploads/?digest={digest(b'other')}"
    async with client.post(path, data=b"content") as answer:
        assert answer.status == 400

    counted = await _counted(client, "cacheproxy_blob_uploads_total", "result")
    assert counted == {("stored",): 1, ("mounted",): 1, ("digest_mismatch",): 1}
    assert await _counted(client, "cacheproxy_uploads_in_progress") == {}


async def test_an_upload_in_chunks_counts_with_all_of_its_bytes(client: Client) -> None:
    """As one, when it ends."""
    location = await begin(client)
    async with client.patch(location, data=b"01234") as answer:
        location = answer.headers["Location"]
    end = f"{location}?digest={digest(b'0123456789')}"
    async with client.put(end, data=b"56789") as answer:
        assert answer.status == 201

    assert await _counted(client, "cacheproxy_blob_uploads_total", "result") == {("stored",): 1}
    counted = await _counted(client, "cacheproxy_blob_upload_bytes_total", "result")
    assert counted == {("stored",): 10}


async def test_strangers_take_no_names(tmp_path: Path) -> None:
    """Of those that there is room for: who is refused has none."""
    access = Refusing(Denied(), frozenset({(Action.PULL, "ci/app"), (Action.METRICS, "None")}))
    settings: dict[str, Any] = {"clients__header": "X-Runner", "clients__names": 1}
    async with serving(tmp_path / "data", access, **settings) as client:
        stranger, one = Runner(client, "stranger"), Runner(client, "one")
        assert await stranger.ask("HEAD", "/v2/ci/other/manifests/cache") == 403
        assert await one.ask("HEAD", _TAG) == 404
        counted = await _counted(client, "cacheproxy_client_cache_requests_total", "client")

    assert counted == {("one",): 1}


async def test_there_are_only_so_many_clients(tmp_path: Path) -> None:
    """Whoever comes later is one of the others."""
    data = tmp_path / "data"
    async with serving(data, clients__header="X-Runner", clients__names=2) as client:
        for name in ("one", "two", "three", "four"):
            await Runner(client, name).ask("HEAD", _TAG)
        counted = await _counted(client, "cacheproxy_client_cache_requests_total", "client")

    assert counted == {("one",): 1, ("two",): 1, ("other",): 2}
