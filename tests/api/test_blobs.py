"""Blobs on the wire: end-2, end-10."""

from __future__ import annotations

import re

import aiohttp
import pytest

from tests.api.wire import UPLOADS, begin, digest, push_blob

Client = aiohttp.ClientSession

_CONTENT = bytes(range(256)) * 1024  # larger than what is answered in one piece


async def _get(client: Client, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    found = await push_blob(client, _CONTENT)
    async with client.get(f"/v2/ci/app/blobs/{found}", headers=headers) as answer:
        return answer, await answer.read()


async def test_a_blob_is_got_whole(client: Client) -> None:
    """end-2: GET answers the bytes with their length and digest."""
    answer, body = await _get(client)

    assert (answer.status, body) == (200, _CONTENT)
    assert answer.headers["Docker-Content-Digest"] == digest(_CONTENT)
    assert answer.headers["Content-Length"] == str(len(_CONTENT))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("10-19", 10, 20), ("100000-", 100_000, 262_144), ("-5", 262_139, 262_144), ("0-0", 0, 1)],
)
async def test_a_part_of_a_blob_is_got(client: Client, asked: str, start: int, end: int) -> None:
    """RFC 9110, 14.2: a range is answered with 206 and what it is a range of."""
    answer, body = await _get(client, Range=f"bytes={asked}")

    assert (answer.status, body) == (206, _CONTENT[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(_CONTENT)}"


async def test_several_parts_are_got_at_once(client: Client) -> None:
    """zstd:chunked clients ask for many ranges; each comes with its place in the blob."""
    answer, body = await _get(client, Range="bytes=0-9,200000-200009,-3")

    assert answer.status == 206
    assert answer.headers["Content-Length"] == str(len(body))
    boundary = answer.headers["Content-Type"].removeprefix("multipart/byteranges; boundary=")
    parts = body.split(f"--{boundary}".encode())[1:-1]
    for part, start in zip(parts, (0, 200_000, len(_CONTENT) - 3), strict=True):
        head, _, content = part.removesuffix(b"\r\n").partition(b"\r\n\r\n")
        assert f"Content-Range: bytes {start}-".encode() in head
        assert content == _CONTENT[start : start + len(content)]


@pytest.mark.parametrize("asked", ["262144-", "5-2", "-0", "x"])
async def test_a_part_that_is_not_there_is_refused(client: Client, asked: str) -> None:
    """RFC 9110, 15.5.17: 416 tells the size."""
    answer, _ = await _get(client, Range=f"bytes={asked}")

    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(_CONTENT)}"


async def test_a_range_in_another_unit_is_ignored(client: Client) -> None:
    """RFC 9110, 14.2: an unknown unit means the whole."""
    answer, body = await _get(client, Range="lines=1-2")

    assert (answer.status, body) == (200, _CONTENT)


async def test_overlapping_ranges_get_the_whole_once(client: Client) -> None:
    """RFC 9110, 14.2: asking for more bytes than there are does not multiply them."""
    answer, body = await _get(client, Range="bytes=" + ",".join(["0-"] * 100))

    assert (answer.status, len(body)) == (200, len(_CONTENT))


async def test_what_the_client_has_is_not_sent(client: Client) -> None:
    """RFC 9110, 13.1.2: If-None-Match with the digest is answered 304."""
    answer, body = await _get(client, **{"If-None-Match": f'"{digest(_CONTENT)}"'})

    assert (answer.status, body) == (304, b"")


async def test_a_range_of_something_else_is_not_resumed(client: Client) -> None:
    """RFC 9110, 13.1.5: If-Range with another tag gets the whole."""
    answer, body = await _get(client, **{"Range": "bytes=5-", "If-Range": '"other"'})

    assert (answer.status, body) == (200, _CONTENT)


async def test_a_deleted_blob_is_hidden_from_its_repository_alone(client: Client) -> None:
    """end-10: the blob is gone there, and stays in others; pushing it again brings it back."""
    found = await push_blob(client, b"content", "one")
    await push_blob(client, b"content", "two")
    async with client.delete(f"/v2/one/blobs/{found}") as answer:
        assert answer.status == 202

    assert await _statuses(client, found) == [404, 200]
    await push_blob(client, b"content", "one")
    assert await _statuses(client, found) == [200, 200]


async def _statuses(client: Client, found: str) -> list[int]:
    statuses = []
    for name in ("one", "two"):
        async with client.head(f"/v2/{name}/blobs/{found}") as answer:
            statuses.append(answer.status)
    return statuses


async def test_a_blob_hidden_at_its_source_is_not_mounted(client: Client) -> None:
    """end-11: `from` must show the blob; else an upload begins."""
    found = await push_blob(client, b"content", "other")
    async with client.delete(f"/v2/other/blobs/{found}"):
        pass

    async with client.post(f"{UPLOADS}?mount={found}&from=other") as answer:
        assert answer.status == 202


async def test_chunks_are_put_together(client: Client) -> None:
    """end-5, end-6, end-13: chunks in order, their sum told on the way, the last with the PUT."""
    path = await begin(client)
    for start, chunk in ((0, b"abc"), (3, b"def")):
        headers = {"Content-Range": f"{start}-{start + 2}"}
        async with client.patch(path, data=chunk, headers=headers) as answer:
            assert answer.headers["Range"] == f"0-{start + 2}"
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


async def test_sha512_is_as_good(client: Client) -> None:
    """A blob is stored and found under the digest that the client chose."""
    found = digest(b"content", "sha512")
    async with client.post(f"{UPLOADS}?digest={found}", data=b"content") as answer:
        assert answer.headers["Docker-Content-Digest"] == found

    async with client.get(f"/v2/ci/app/blobs/{found}") as answer:
        assert await answer.read() == b"content"


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
