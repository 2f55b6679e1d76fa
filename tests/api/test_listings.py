"""Lists on the wire: end-8 and the catalog."""

from __future__ import annotations

from urllib.parse import urlencode

import aiohttp
import pytest

from tests.api.wire import MANIFEST, digest, manifest, next_page, push_blob, push_manifest

Client = aiohttp.ClientSession

_SUBJECT = {"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}
_REFERRERS = f"/v2/ci/app/referrers/{digest(b'subject')}"
_TAGS = "/v2/ci/app/tags/list"


async def _walk(client: Client, path: str, key: str) -> list[list[str]]:
    """The pages of a list, from link to link."""
    pages = []
    while path:
        async with client.get(path) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            pages.append((await answer.json())[key])
            path = next_page(answer)
    return pages


async def _push_to(client: Client, name: str) -> None:
    headers = {"Content-Type": MANIFEST}
    async with client.put(f"/v2/{name}/manifests/t", data=manifest(), headers=headers) as answer:
        assert answer.status == 201


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a", "b", "c"]),
        ("?last=a", ["b", "c"]),
        ("?last=aa", ["b", "c"]),
        ("?last=c", []),
        ("?last=zzz&n=1", []),
        ("?n=3", ["a", "b", "c"]),
        ("?n=1&last=b", ["c"]),
        ("?n=0", []),
        ("?n=" + "9" * 30, ["a", "b", "c"]),
    ],
)
async def test_tags_behind_the_last_one_are_listed(
    client: Client, query: str, expected: list[str]
) -> None:
    """end-8: `last` need not be a tag; a last page has no link."""
    for tag in ("c", "a", "b"):
        await push_manifest(client, tag, manifest())

    async with client.get(_TAGS + query) as answer:
        assert answer.status == 200
        assert await answer.json() == {"name": "ci/app", "tags": expected}
        assert "Link" not in answer.headers


@pytest.mark.parametrize("n", ["", "-1", "x", "1.5", "1e3", "%EF%BC%95", "+1"])
@pytest.mark.parametrize("path", [_TAGS, "/v2/_catalog"])
async def test_a_bad_page_length_is_refused(client: Client, path: str, n: str) -> None:
    """end-8: 400 for what is no number, on every list that has pages."""
    await push_manifest(client, "t", manifest())

    async with client.get(f"{path}?n={n}") as answer:
        assert answer.status == 400


@pytest.mark.parametrize("last", ["../../../etc/", "\0", "%2e%2e", "x" * 5000, "\udcff"])
@pytest.mark.parametrize("path", [_TAGS, "/v2/_catalog", _REFERRERS])
async def test_any_last_is_only_a_place_in_the_list(client: Client, path: str, last: str) -> None:
    """end-8, end-12: it is compared, and never a path."""
    await push_manifest(client, "t", manifest(subject=_SUBJECT))
    query = urlencode({"last": last}, errors="surrogateescape")

    async with client.get(f"{path}?{query}") as answer:
        assert answer.status == 200


async def test_a_repository_without_tags_has_an_empty_list(client: Client) -> None:
    """end-8: manifests that are known by digest alone make a repository too."""
    await push_manifest(client, digest(manifest()), manifest())

    async with client.get(_TAGS) as answer:
        assert await answer.json() == {"name": "ci/app", "tags": []}


async def test_blobs_alone_make_no_repository(client: Client) -> None:
    """end-8: a repository is known when a manifest names it."""
    await push_blob(client, b"content")

    async with client.get(_TAGS) as answer:
        assert answer.status == 404


async def test_the_catalog_walks_in_the_order_of_names(client: Client) -> None:
    """Repositories within repositories and their neighbours, in pages of any length."""
    names = sorted(["a", "a-b", "a/b", "a/b/c", "a.b", "a0", "z"])
    for name in names:
        await _push_to(client, name)
    for length in (1, 2, 3, 7, 8):
        pages = await _walk(client, f"/v2/_catalog?n={length}", "repositories")

        assert pages == [names[i : i + length] for i in range(0, len(names), length)]


async def test_the_catalog_of_an_empty_registry_is_empty(client: Client) -> None:
    """200 with no names."""
    async with client.get("/v2/_catalog") as answer:
        assert await answer.json() == {"repositories": []}


async def test_a_repository_whose_manifests_are_gone_is_gone(client: Client) -> None:
    """The catalog lists what can be pulled from."""
    await push_manifest(client, "t", manifest())
    async with client.delete(f"/v2/ci/app/manifests/{digest(manifest())}"):
        pass

    async with client.get("/v2/_catalog") as answer:
        assert await answer.json() == {"repositories": []}


async def test_tags_are_listed_in_pages(client: Client) -> None:
    """end-8: `n` at a time, each page with a link to the next, in order."""
    names = ["B", "_", "a", "a-b", "a.b", "a1"]
    for name in names:
        await push_manifest(client, name, manifest())
    found, path = [], "/v2/ci/app/tags/list?n=4"
    while path:
        async with client.get(path) as answer:
            found.append((await answer.json())["tags"])
            path = next_page(answer)

    assert found == [names[:4], names[4:]]


async def test_an_unknown_repository_has_no_tags(client: Client) -> None:
    """end-8: 404 NAME_UNKNOWN."""
    async with client.get("/v2/no/where/tags/list") as answer:
        assert answer.status == 404
        assert (await answer.json())["errors"][0]["code"] == "NAME_UNKNOWN"
