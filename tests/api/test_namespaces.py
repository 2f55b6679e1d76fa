"""Namespaces on the wire: they share nothing, not even what exists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cacheproxy.oci.digest import Digest
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.layout import Namespace
from tests.api.wire import MANIFEST, digest, manifest, next_page, push_blob
from tests.fakes import RemoteBucket
from tests.server import serving

Client = aiohttp.ClientSession

_NAMESPACES = """[
{name: blue, repositories: ["blue/*"]},
{name: red, repositories: ["red/*", "a/red"]}]"""
_BLUE, _RED, _CI = "blue/app", "red/app", "ci/app"
_SUBJECT = {"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a registry with the namespaces blue and red."""
    async with serving(tmp_path / "data", storage__namespaces=_NAMESPACES) as session:
        yield session


async def _status(client: Client, method: str, path: str, body: bytes = b"") -> int:
    headers = {"Content-Type": MANIFEST}
    async with client.request(method, f"/v2/{path}", data=body or None, headers=headers) as answer:
        await answer.read()
        return answer.status


async def _put(client: Client, name: str, tag: str = "tag", **fields: object) -> str:
    """Push a manifest; returns its digest."""
    body = manifest(**fields)
    assert await _status(client, "PUT", f"{name}/manifests/{tag}", body) == 201
    return digest(body)


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
async def test_a_blob_of_one_namespace_is_none_of_another(client: Client, method: str) -> None:
    """404 from the others; in its own every repository has it."""
    found = await push_blob(client, b"content", _BLUE)

    for name in (_RED, _CI, "blue", "other/blue/app"):
        assert await _status(client, method, f"{name}/blobs/{found}") == 404
    for name in (_BLUE, "blue/other"):
        assert await _status(client, method, f"{name}/blobs/{found}") < 300


async def test_a_blob_is_stored_in_each_namespace(client: Client, tmp_path: Path) -> None:
    """Each has its own, and goes on having it when another loses it."""
    names = {"blue": _BLUE, "red": _RED, "default": _CI}
    for name in names.values():
        await push_blob(client, b"content", name)
    found = digest(b"content")
    stored = {
        namespace: tmp_path / "data" / namespace / f"blobs/sha256/{found[7:9]}/{found[7:]}"
        for namespace in names
    }

    assert all(path.read_bytes() == b"content" for path in stored.values())
    assert await _status(client, "DELETE", f"{_BLUE}/blobs/{found}") == 202
    stored["red"].unlink()
    answers = [await _status(client, "GET", f"{name}/blobs/{found}") for name in names.values()]
    assert answers == [404, 404, 200]


@pytest.mark.parametrize("source", [f"&from={_BLUE}", "&from=blue/other", ""])
async def test_nothing_is_mounted_from_another_namespace(client: Client, source: str) -> None:
    """An upload begins, as where the source is absent; inside the namespace it is mounted."""
    found = await push_blob(client, b"content", _BLUE)
    query = f"blobs/uploads/?mount={found}{source}"

    assert await _status(client, "POST", f"{_CI}/{query}") == 202
    assert await _status(client, "HEAD", f"{_CI}/blobs/{found}") == 404
    assert await _status(client, "POST", f"blue/new/{query}") == 201


async def test_a_source_elsewhere_is_none_though_the_blob_is_here(client: Client) -> None:
    """Nothing is asked there, and nothing told of it."""
    query = f"blobs/uploads/?mount={digest(b'content')}"
    for name in (_BLUE, _CI):
        await push_blob(client, b"content", name)
    assert await _status(client, "POST", f"{_CI}/{query}&from={_BLUE}") == 202
    assert await _status(client, "POST", f"{_CI}/{query}") == 201


@pytest.mark.parametrize("name", [_RED, _CI, "blue/other"])
async def test_an_upload_is_finished_where_it_was_begun(client: Client, name: str) -> None:
    """Elsewhere the session is unknown, with chunks and without."""
    async with client.post(f"/v2/{_BLUE}/blobs/uploads/") as answer:
        location = answer.headers["Location"]
    end = f"?digest={digest(b'content')}"
    for last in (b"content", b"tent"):
        elsewhere = location.replace(_BLUE, name).removeprefix("/v2/") + end
        assert await _status(client, "PUT", elsewhere, last) == 404
        assert await _status(client, "GET", elsewhere) == 404
        if last == b"content":
            async with client.patch(location, data=b"con") as answer:
                location = answer.headers["Location"]
    async with client.put(location + end, data=last) as answer:
        assert answer.status == 201
    assert await _status(client, "HEAD", f"{_BLUE}/blobs/{digest(b'content')}") == 200
    assert await _status(client, "HEAD", f"{_CI}/blobs/{digest(b'content')}") == 404


async def test_chunks_are_in_the_namespace_of_their_upload(client: Client, tmp_path: Path) -> None:
    """Nothing of another namespace is in its prefix."""
    async with client.post(f"/v2/{_RED}/blobs/uploads/") as answer:
        location = answer.headers["Location"]
    async with client.patch(location, data=b"con") as answer:
        assert answer.status == 202

    assert [path.parent.parent.name for path in tmp_path.glob("data/*/uploads/*")] == ["red"]


async def test_manifests_tags_and_referrers_are_where_they_were_pushed(client: Client) -> None:
    """As ever they belong to a repository."""
    found = await _put(client, _BLUE, subject=_SUBJECT)

    for name, there in ((_BLUE, True), ("blue/other", False), (_RED, False), (_CI, False)):
        for path in ("manifests/tag", f"manifests/{found}", "tags/list"):
            assert await _status(client, "GET", f"{name}/{path}") == (200 if there else 404)
        async with client.get(f"/v2/{name}/referrers/{digest(b'subject')}") as answer:
            assert len((await answer.json(content_type=None))["manifests"]) == there


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_the_catalog_is_one_list(client: Client, size: int) -> None:
    """Of all namespaces, in order, each name once, on pages of any length."""
    names = ["a", "a/red", "a/z", "blue-x", "blue/a", "blue/b", "ci", "red/a", "red/b/c", "z"]
    for name in reversed(names):
        await _put(client, name)
    pages, path = [], f"/v2/_catalog?n={size}"
    while path:
        async with client.get(path) as answer:
            pages.append((await answer.json())["repositories"])
            path = next_page(answer)

    assert [name for page in pages for name in page] == names
    assert {len(page) for page in pages[:-1]} <= {size}


def test_what_was_stored_without_namespaces_is_served(tmp_path: Path) -> None:
    """In the default namespace. What is in another one by now is not there, nor in the catalog."""

    async def store() -> str:
        async with serving(tmp_path / "data") as session:
            for name in (_CI, _BLUE):
                await _put(session, name)
            return await push_blob(session, b"content", _CI)

    async def look(found: str) -> None:
        async with serving(tmp_path / "data", storage__namespaces=_NAMESPACES) as session:
            for name, status in ((_CI, 200), (_BLUE, 404)):
                assert await _status(session, "HEAD", f"{name}/blobs/{found}") == status
                assert await _status(session, "HEAD", f"{name}/manifests/tag") == status
            async with session.get("/v2/_catalog") as answer:
                assert (await answer.json())["repositories"] == [_CI]

    asyncio.run(look(asyncio.run(store())))


async def test_the_tier_serves_nothing_of_another_namespace(tmp_path: Path) -> None:
    """What was pushed to one, or read there, is looked for in the bucket for another, and read from
    there once if it is in that too."""
    (tmp_path / "bucket").mkdir()
    folder = FolderBucket(str(tmp_path / "bucket"))
    remote = RemoteBucket(folder)
    async with serving(tmp_path, bucket=remote, storage__namespaces=_NAMESPACES) as session:
        pushed = await push_blob(session, b"pushed", _BLUE)
        for name, status in ((_BLUE, 200), (_RED, 404), (_CI, 404)):
            assert await _status(session, "GET", f"{name}/blobs/{pushed}") == status
        keys = [Namespace(name).blob(Digest(digest(b"held"))) for name in ("blue", "red")]
        for key, in_red in zip(keys, (404, 200), strict=True):
            await folder.put(key, b"held")
            for name, status in ((_BLUE, 200), (_RED, in_red), (_CI, 404)) * 2:
                assert await _status(session, "GET", f"{name}/blobs/{digest(b'held')}") == status
    assert [len(remote.parts(key)) for key in keys] == [1, 2 + 1]
