"""Blobs on the wire: end-2, end-10."""

from __future__ import annotations

import random

import aiohttp
import pytest

from tests.api.wire import UPLOADS, digest, push_blob

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
    size = len(_CONTENT)
    ranges = ((0, 10), (200_000, 200_010), (size - 3, size))
    for part, (start, end) in zip(parts, ranges, strict=True):
        head, _, content = part.removesuffix(b"\r\n").partition(b"\r\n\r\n")
        assert f"Content-Range: bytes {start}-{end - 1}/{size}\r\n".encode() in head + b"\r\n"
        assert content == _CONTENT[start:end]


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


async def test_sha512_is_as_good(client: Client) -> None:
    """A blob is stored and found under the digest that the client chose."""
    found = digest(b"content", "sha512")
    async with client.post(f"{UPLOADS}?digest={found}", data=b"content") as answer:
        assert answer.headers["Docker-Content-Digest"] == found

    async with client.get(f"/v2/ci/app/blobs/{found}") as answer:
        assert await answer.read() == b"content"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_unknown_blob_is_not_found(client: Client, method: str) -> None:
    """end-2: 404, and BLOB_UNKNOWN where there is a body."""
    async with client.request(method, f"/v2/ci/app/blobs/{digest(b'absent')}") as answer:
        body = await answer.read()

    assert answer.status == 404
    assert body == b"" if method == "HEAD" else b'"BLOB_UNKNOWN"' in body


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, (8 << 20) + 1, 20 << 20])
async def test_a_blob_of_any_size_comes_back_as_it_was(client: Client, size: int) -> None:
    """end-2: also at the edges of what is answered in one piece and copied in one window."""
    content = random.Random(size).randbytes(size)
    found = await push_blob(client, content)

    async with client.get(f"/v2/ci/app/blobs/{found}") as answer:
        assert answer.headers["Content-Length"] == str(size)
        assert digest(await answer.read()) == found


async def test_a_range_over_several_windows_is_whole(client: Client) -> None:
    """A range that the kernel copies in several calls has neither gap nor overlap."""
    content = random.Random(1).randbytes(20 << 20)
    found = await push_blob(client, content)
    headers = {"Range": f"bytes=1000-{(18 << 20) - 1}"}

    async with client.get(f"/v2/ci/app/blobs/{found}", headers=headers) as answer:
        assert await answer.read() == content[1000 : 18 << 20]


async def test_ranges_that_are_not_there_are_left_out(client: Client) -> None:
    """RFC 9110, 14.2: one satisfiable range of several is answered alone."""
    answer, body = await _get(client, Range="bytes=5-9,900000-900001")

    assert (answer.status, body) == (206, _CONTENT[5:10])


async def test_a_range_of_the_same_thing_is_resumed(client: Client) -> None:
    """RFC 9110, 13.1.5: If-Range with the ETag of the blob gets the part."""
    headers = {"Range": "bytes=5-", "If-Range": f'"{digest(_CONTENT)}"'}
    answer, body = await _get(client, **headers)

    assert (answer.status, body) == (206, _CONTENT[5:])


@pytest.mark.parametrize("header", ["*", '"other", {etag}', "W/{etag}"])
async def test_every_form_of_if_none_match_is_understood(client: Client, header: str) -> None:
    """RFC 9110, 13.1.2: a star, a list, and weak tags."""
    etag = f'"{digest(_CONTENT)}"'
    answer, _ = await _get(client, **{"If-None-Match": header.replace("{etag}", etag)})

    assert (answer.status, answer.headers["ETag"]) == (304, etag)


async def test_the_etag_of_something_else_gets_the_blob(client: Client) -> None:
    """RFC 9110, 13.1.2: If-None-Match with another tag changes nothing."""
    answer, body = await _get(client, **{"If-None-Match": f'"{digest(b"other")}"'})

    assert (answer.status, body) == (200, _CONTENT)


async def test_head_ignores_ranges(client: Client) -> None:
    """RFC 9110, 14.2: Range is for GET alone, and containerd wants the whole size of HEAD."""
    found = await push_blob(client, _CONTENT)
    headers = {"Range": "bytes=0-9"}

    async with client.head(f"/v2/ci/app/blobs/{found}", headers=headers) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(_CONTENT)))
