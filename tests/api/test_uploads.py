"""Uploads on the wire in all their forms: end-4a, end-4b, end-5, end-6, end-11."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.api.wire import UPLOADS, begin, digest, push_blob
from tests.server import serving

Client = aiohttp.ClientSession

_CONTENT = bytes(range(256)) * 1000
_BLOB = f"/v2/ci/app/blobs/{digest(_CONTENT)}"


async def _streamed(content: bytes) -> AsyncIterator[bytes]:
    """A body without a length, which aiohttp sends in chunks."""
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


async def _stored(client: Client) -> bool:
    async with client.get(_BLOB) as answer:
        return answer.status == 200 and await answer.read() == _CONTENT


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_blob_is_pushed_by_post_and_put(client: Client, streamed: bool) -> None:
    """end-4a, end-6: what BuildKit does; 201 with where the blob is and its digest."""
    path = await begin(client)
    body = _streamed(_CONTENT) if streamed else io.BytesIO(_CONTENT)

    async with client.put(f"{path}?digest={digest(_CONTENT)}", data=body) as answer:
        assert (answer.status, await answer.read()) == (201, b"")
        assert answer.headers["Location"] == _BLOB
        assert answer.headers["Docker-Content-Digest"] == digest(_CONTENT)
    assert await _stored(client)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_blob_is_pushed_by_one_post(client: Client, streamed: bool) -> None:
    """end-4b: 201 with where the blob is."""
    body = _streamed(_CONTENT) if streamed else io.BytesIO(_CONTENT)

    async with client.post(f"{UPLOADS}?digest={digest(_CONTENT)}", data=body) as answer:
        assert (answer.status, answer.headers["Location"]) == (201, _BLOB)
    assert await _stored(client)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_blob_is_pushed_by_patch_and_an_empty_put(client: Client, streamed: bool) -> None:
    """end-5, end-6: what docker and skopeo do, with a length or without."""
    path = await begin(client)
    body = _streamed(_CONTENT) if streamed else io.BytesIO(_CONTENT)
    async with client.patch(path, data=body) as answer:
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{len(_CONTENT) - 1}"
        path = answer.headers["Location"]

    async with client.put(f"{path}?digest={digest(_CONTENT)}") as answer:
        assert answer.status == 201
    assert await _stored(client)


async def test_the_parameters_of_a_put_may_come_in_any_order(client: Client) -> None:
    """containerd sorts the query and appends `ns`; proxies append what they like."""
    path = await begin(client)
    query = f"aa=1&digest={digest(_CONTENT).replace(':', '%3A')}&ns=localhost%3A5000&zz"

    async with client.put(f"{path}?{query}", data=_CONTENT) as answer:
        assert answer.status == 201


async def test_a_new_upload_is_empty(client: Client) -> None:
    """end-4a: 202, with the session under its three names."""
    async with client.post(UPLOADS) as answer:
        assert (answer.status, answer.headers["Range"]) == (202, "0-0")
        session = answer.headers["Docker-Upload-UUID"]
        assert answer.headers["Location"] == UPLOADS + session


async def test_an_upload_may_be_begun_without_the_last_slash(client: Client) -> None:
    """end-4a: some clients leave it out."""
    async with client.post(UPLOADS.rstrip("/")) as answer:
        assert answer.status == 202


@pytest.mark.parametrize(
    "query", ["", "?digest=", "?digest=x", "?digest=md5:00", "?digest=sha256:"]
)
async def test_a_put_needs_a_digest(client: Client, query: str) -> None:
    """end-6: without one that can be checked it is 400 DIGEST_INVALID."""
    path = await begin(client)

    async with client.put(path + query, data=b"x") as answer:
        assert answer.status == 400
        assert (await answer.json())["errors"][0]["code"] == "DIGEST_INVALID"


async def test_an_upload_may_say_its_algorithm_at_once(client: Client) -> None:
    """end-4a: `digest-algorithm=sha512` is taken, and the PUT has such a digest."""
    async with client.post(f"{UPLOADS}?digest-algorithm=sha512") as answer:
        assert answer.status == 202
        path = answer.headers["Location"]
    async with client.patch(path, data=_CONTENT[:100]) as answer:
        assert answer.status == 202
        path = answer.headers["Location"]
    target = f"{path}?digest={digest(_CONTENT, 'sha512')}"

    async with client.put(target, data=_CONTENT[100:]) as answer:
        assert answer.headers["Docker-Content-Digest"] == digest(_CONTENT, "sha512")


async def test_an_algorithm_that_is_not_supported_is_told_at_once(client: Client) -> None:
    """end-4a: 400 before a byte was sent."""
    async with client.post(f"{UPLOADS}?digest-algorithm=md5") as answer:
        assert answer.status == 400


@pytest.mark.parametrize("known_length", [True, False])
@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
async def test_a_blob_beyond_the_limit_is_refused(
    tmp_path: Path, method: str, known_length: bool
) -> None:
    """`limits.blob_bytes` holds for every form of upload: 413, and nothing is kept."""
    async with serving(tmp_path / "data", limits__blob_bytes="1000") as client:
        path = UPLOADS if method == "POST" else await begin(client)
        target = f"{path}?digest={digest(_CONTENT)}"
        body = io.BytesIO(_CONTENT[:1001]) if known_length else _streamed(_CONTENT[:1001])
        async with client.request(method, target, data=body) as answer:
            assert answer.status == 413
            assert (await answer.json())["errors"][0]["code"] == "SIZE_INVALID"
    assert list((tmp_path / "data" / ".spool").iterdir()) == []


async def test_a_mount_shows_the_blob_in_the_other_repository(client: Client) -> None:
    """end-11: 201 with where the blob now is too."""
    found = await push_blob(client, _CONTENT, "other")

    async with client.post(f"{UPLOADS}?mount={found}&from=other") as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == _BLOB
        assert answer.headers["Docker-Content-Digest"] == found
    assert await _stored(client)


@pytest.mark.parametrize("query", ["mount=x", f"mount={digest(b'x')}&from=..%2F..", "mount=md5:00"])
async def test_a_mount_of_nonsense_is_refused(client: Client, query: str) -> None:
    """end-11: 400, and no upload begins."""
    async with client.post(f"{UPLOADS}?{query}") as answer:
        assert answer.status == 400
        assert "Location" not in answer.headers


async def test_a_blob_hidden_at_its_source_is_not_mounted(client: Client) -> None:
    """end-11: `from` must show the blob; else an upload begins."""
    found = await push_blob(client, b"content", "other")
    async with client.delete(f"/v2/other/blobs/{found}"):
        pass

    async with client.post(f"{UPLOADS}?mount={found}&from=other") as answer:
        assert answer.status == 202
