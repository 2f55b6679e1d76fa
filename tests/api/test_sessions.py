"""Upload sessions on the wire: end-5, end-6, end-13, end-14."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from tests.api.wire import UPLOADS, begin, digest
from tests.server import serving

Client = aiohttp.ClientSession


async def test_chunks_are_put_together(client: Client) -> None:
    """end-5, end-6, end-13: chunks in order, their sum told on the way, the last with the PUT."""
    path = await begin(client)
    for start, chunk in ((0, b"abc"), (3, b"def")):
        headers = {"Content-Range": f"{start}-{start + 2}"}
        async with client.patch(path, data=chunk, headers=headers) as answer:
            assert answer.headers["Range"] == f"0-{start + 2}"
            path = answer.headers["Location"]
    async with client.get(path) as answer:
        assert (answer.status, answer.headers["Range"]) == (204, "0-5")
    found = digest(b"abcdefghi")

    async with client.put(f"{path}?digest={found}", data=b"ghi") as answer:
        assert answer.status == 201
    async with client.get(f"/v2/ci/app/blobs/{found}") as answer:
        assert await answer.read() == b"abcdefghi"
    async with client.get(path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_chunk_out_of_order_is_refused(client: Client, method: str) -> None:
    """end-5, end-6: 416 tells where the upload ends, and nothing of the chunk is kept."""
    path = await begin(client)
    async with client.patch(path, data=b"abc"):
        pass
    headers = {"Content-Range": "5-7"}
    target = f"{path}?digest={digest(b'fgh')}"

    async with client.request(method, target, data=b"fgh", headers=headers) as answer:
        assert (answer.status, answer.headers["Range"]) == (416, "0-2")


@pytest.mark.parametrize("header", ["0-1", "2-0", "x", "bytes 0-2/x"])
async def test_a_contradictory_chunk_is_refused(client: Client, header: str) -> None:
    """end-5: a Content-Range that is malformed or not as long as the body is 400."""
    path = await begin(client)

    async with client.patch(path, data=b"abc", headers={"Content-Range": header}) as answer:
        assert answer.status == 400


async def test_content_of_another_digest_is_refused(client: Client) -> None:
    """end-6: nothing is stored, and an upload in chunks can still be completed rightly."""
    path = await begin(client)
    async with client.patch(path, data=b"abc"):
        pass
    async with client.put(f"{path}?digest={digest(b'xyz')}") as answer:
        assert answer.status == 400
        assert (await answer.json())["errors"][0]["code"] == "DIGEST_INVALID"

    async with client.put(f"{path}?digest={digest(b'abc')}") as answer:
        assert answer.status == 201


@pytest.mark.parametrize(
    "session", ["x", "..", "%2e%2e", "..%2f..%2fblobs", "A" * 40, "a" * 39 + "!"]
)
async def test_a_session_that_was_never_begun_is_unknown(client: Client, session: str) -> None:
    """end-13: what is not a session's own name is 404, whatever it looks like."""
    async with client.get(f"{UPLOADS}{session}") as answer:
        assert answer.status == 404


async def test_a_session_belongs_to_its_repository(client: Client) -> None:
    """A session's name is of no use in another repository."""
    path = await begin(client)

    async with client.get(re.sub("ci/app", "other", path)) as answer:
        assert answer.status == 404


async def test_a_cancelled_upload_takes_nothing_more(client: Client) -> None:
    """end-14: 204, then 404 BLOB_UPLOAD_UNKNOWN for whatever is asked of it."""
    path = await begin(client)
    async with client.patch(path, data=b"abc"):
        pass
    async with client.delete(path) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        async with client.request(method, f"{path}?digest={digest(b'abc')}") as answer:
            assert answer.status == 404
            assert (await answer.json())["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"


async def test_an_upload_that_is_too_old_is_unknown(tmp_path: Path) -> None:
    """`limits.upload_seconds` ends a session that nobody ended."""
    async with serving(tmp_path / "data", limits__upload_seconds=1e-9) as client:
        path = await begin(client)
        async with client.get(path) as answer:
            assert answer.status == 404
