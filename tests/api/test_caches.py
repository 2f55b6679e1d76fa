"""Cache tags on the wire, and their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cacheproxy.buildkit.cache import Cache
from cacheproxy.buildkit.manifest import CacheManifest, read_cache, read_manifest
from tests.api.wire import digest, push_blob
from tests.registry.exports import Export, export
from tests.server import serving

Client = aiohttp.ClientSession

ONE, TWO = export("a", "b"), export("a", "c")


async def _push(client: Client, one: Export, name: str = "ci/app") -> aiohttp.ClientResponse:
    for content in (*one.layers.values(), one.written.config):
        await push_blob(client, content, name)
    headers = {"Content-Type": one.written.media_type}
    path, body = f"/v2/{name}/manifests/cache", one.written.manifest
    async with client.put(path, data=body, headers=headers) as answer:
        assert answer.status == 201
        await answer.read()
        return answer


async def _pull(client: Client, name: str = "ci/app") -> tuple[bytes, Cache]:
    """The manifest that the tag leads to, and the cache that a builder reads."""
    async with client.get(f"/v2/{name}/manifests/cache") as answer:
        manifest = await answer.read()
        assert answer.status == 200
    about = read_manifest(manifest)
    assert isinstance(about, CacheManifest)
    async with client.get(f"/v2/{name}/blobs/{about.config_digest}") as answer:
        cache = read_cache(manifest, await answer.read())
    assert isinstance(cache, Cache)
    return manifest, cache


@pytest.mark.parametrize("form", ["image", "index"])
async def test_a_look_at_a_cache_tag_tells_the_union(client: Client, form: str) -> None:
    """end-3, end-7: a push is answered with what was pushed; HEAD and GET by tag, and GET by the
    digest that HEAD tells, agree on the union: its type, its length, its bytes."""
    other = export("a", "c", form="index") if form == "index" else TWO
    await _push(client, ONE)
    answer = await _push(client, other)
    assert answer.headers["Docker-Content-Digest"] == digest(other.written.manifest)

    manifest, _ = await _pull(client)
    assert digest(manifest) not in (digest(ONE.written.manifest), digest(other.written.manifest))
    async with client.head("/v2/ci/app/manifests/cache") as told:
        assert told.headers["Docker-Content-Digest"] == digest(manifest)
        assert told.headers["Content-Length"] == str(len(manifest))
        assert told.headers["Content-Type"] == other.written.media_type
    async with client.get(f"/v2/ci/app/manifests/{digest(manifest)}") as told:
        assert await told.read() == manifest


async def test_a_union_that_a_client_has_is_not_sent_again(client: Client) -> None:
    """end-3: 304, until something changes."""
    await _push(client, ONE)
    await _push(client, TWO)
    manifest, _ = await _pull(client)
    known = {"If-None-Match": f'"{digest(manifest)}"'}
    async with client.get("/v2/ci/app/manifests/cache", headers=known) as answer:
        assert answer.status == 304

    await _push(client, export("d"))
    async with client.get("/v2/ci/app/manifests/cache", headers=known) as answer:
        assert answer.status == 200


async def test_merging_is_set_for_repositories(tmp_path: Path) -> None:
    """`cache.sources` for all, `cache.rules` for some."""
    rules = '[{repositories: "merged/*", sources: 2}]'
    async with serving(tmp_path / "data", cache__sources=1, cache__rules=rules) as client:
        for name in ("plain/app", "merged/app"):
            for one in (export("z"), ONE, TWO):
                await _push(client, one, name)

        assert (await _pull(client, "plain/app"))[0] == TWO.written.manifest
        _, cache = await _pull(client, "merged/app")
        assert len(cache.config.records) == 4  # the base, a, b and c


@pytest.mark.parametrize("setting", ["cache__config_bytes", "cache__manifest_bytes"])
async def test_the_limits_are_set(tmp_path: Path, setting: str) -> None:
    """`cache.config_bytes` and `cache.manifest_bytes` are what BuildKit imports."""
    big = export(*[f"step {number}" for number in range(40)])
    part = big.written.config if setting == "cache__config_bytes" else big.written.manifest
    settings: dict[str, Any] = {setting: len(part) // 2}
    async with serving(tmp_path / "data", **settings) as client:
        await _push(client, big)
        manifest, cache = await _pull(client)

    assert len(manifest) < len(big.written.manifest)
    assert 10 < len(cache.config.records) < 41
