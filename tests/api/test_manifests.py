"""Manifests on the wire: end-3, end-7, end-9."""

from __future__ import annotations

import io
import json
from pathlib import Path

import aiohttp
import pytest

from tests.api.wire import INDEX, MANIFEST, digest, manifest, push_manifest
from tests.server import serving

Client = aiohttp.ClientSession


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_manifest_is_served_byte_for_byte(client: Client, algorithm: str) -> None:
    """end-3, end-7: also one with odd spacing, by digest."""
    body = b" " + manifest() + b"\n\n"
    await push_manifest(client, digest(body, algorithm), body)

    async with client.get(f"/v2/ci/app/manifests/{digest(body, algorithm)}") as answer:
        assert await answer.read() == body
        assert answer.headers["Content-Type"] == MANIFEST
        assert answer.headers["Docker-Content-Digest"] == digest(body, algorithm)


async def test_a_manifest_under_another_digest_is_refused(client: Client) -> None:
    """end-7: 400, and nothing is stored."""
    assert (await push_manifest(client, digest(b"other"), manifest())).status == 400
    async with client.get(f"/v2/ci/app/manifests/{digest(manifest())}") as answer:
        assert answer.status == 404


async def test_a_push_by_digest_sets_tags(client: Client) -> None:
    """end-7: every `tag` parameter is set, and told in OCI-Tag."""
    answer = await push_manifest(client, f"{digest(manifest())}?tag=a&tag=b", manifest())

    assert answer.headers.getall("OCI-Tag") == ["a", "b"]
    assert await _tags(client) == ["a", "b"]


async def test_deleting_a_tag_leaves_the_manifest(client: Client) -> None:
    """end-9: only the name goes."""
    await push_manifest(client, "one", manifest())
    async with client.delete("/v2/ci/app/manifests/one") as answer:
        assert answer.status == 202

    async with client.get("/v2/ci/app/manifests/one") as answer:
        assert answer.status == 404
    async with client.get(f"/v2/ci/app/manifests/{digest(manifest())}") as answer:
        assert answer.status == 200


async def test_deleting_a_manifest_takes_its_tags_and_no_others(client: Client) -> None:
    """end-9: tags that point elsewhere stay."""
    await push_manifest(client, "gone", manifest())
    await push_manifest(client, "stays", manifest(annotations={"a": "b"}))
    async with client.delete(f"/v2/ci/app/manifests/{digest(manifest())}") as answer:
        assert answer.status == 202

    assert await _tags(client) == ["stays"]


@pytest.mark.parametrize("known_length", [True, False])
async def test_a_manifest_beyond_the_limit_is_refused(client: Client, known_length: bool) -> None:
    """413, whether or not the length is announced."""
    body = b" " * ((8 << 20) + 1)

    async def pieces() -> object:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    data = io.BytesIO(body) if known_length else pieces()
    headers = {"Content-Type": MANIFEST}
    async with client.put("/v2/ci/app/manifests/t", data=data, headers=headers) as answer:
        assert answer.status == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2,"mediaType":"text/plain"}',
        b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"nonsense","size":1}}',
        b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:00\\n","size":1}}',
        b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:00","size":-1}}',
        b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:00","size":1e400}}',
    ],
)
async def test_nonsense_is_no_manifest(client: Client, body: bytes) -> None:
    """end-7: 400 in the spec's form, however deep, long or broken the JSON is."""
    headers = {"Content-Type": MANIFEST}
    async with client.put("/v2/ci/app/manifests/t", data=body, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["errors"][0]["code"] == "MANIFEST_INVALID"


async def test_an_index_may_hold_indexes(client: Client) -> None:
    """Nested indexes are stored and served like any."""
    inner = {"mediaType": INDEX, "digest": digest(b"inner"), "size": 5}
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}).encode()
    await push_manifest(client, "nested", body, INDEX)

    async with client.get("/v2/ci/app/manifests/nested") as answer:
        assert answer.headers["Content-Type"] == INDEX
        assert await answer.read() == body


async def _tags(client: Client) -> list[str]:
    async with client.get("/v2/ci/app/tags/list") as answer:
        return list((await answer.json())["tags"])


@pytest.mark.parametrize("reference", ["tag", digest(manifest())])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_manifest_has_the_same_headers_by_every_name(
    client: Client, method: str, reference: str
) -> None:
    """end-3: type without charset, length and digest, on GET and HEAD, by tag and digest."""
    await push_manifest(client, "tag", manifest())

    async with client.request(method, f"/v2/ci/app/manifests/{reference}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == MANIFEST
        assert answer.headers["Content-Length"] == str(len(manifest()))
        assert answer.headers["Docker-Content-Digest"] == digest(manifest())
        assert await answer.read() == (manifest() if method == "GET" else b"")


async def test_a_push_tells_where_the_manifest_is(client: Client) -> None:
    """end-7: 201 with a relative Location by digest, the digest, and no OCI-Subject of nothing."""
    answer = await push_manifest(client, "tag", manifest())

    assert answer.status == 201
    assert answer.headers["Location"] == f"/v2/ci/app/manifests/{digest(manifest())}"
    assert answer.headers["Docker-Content-Digest"] == digest(manifest())
    assert "OCI-Subject" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("reference", ["absent", digest(b"absent")])
async def test_an_unknown_manifest_is_not_found(
    client: Client, method: str, reference: str
) -> None:
    """end-3, end-9: 404, and MANIFEST_UNKNOWN where there is a body."""
    async with client.request(method, f"/v2/ci/app/manifests/{reference}") as answer:
        body = await answer.read()

    assert answer.status == 404
    assert body == b"" if method == "HEAD" else b'"MANIFEST_UNKNOWN"' in body


async def test_a_manifest_of_exactly_the_limit_is_taken(tmp_path: Path) -> None:
    """`limits.manifest_bytes` is the largest manifest that is taken, and one byte more is 413."""
    async with serving(tmp_path / "data", limits__manifest_bytes=5000) as client:
        for length, status in ((5000, 201), (5001, 413)):
            body = manifest().ljust(length)
            assert (await push_manifest(client, "tag", body)).status == status


async def test_a_manifest_that_the_client_has_is_not_sent(client: Client) -> None:
    """RFC 9110, 13.1.2: If-None-Match with the digest is answered 304, with the digest."""
    await push_manifest(client, "tag", manifest())
    headers = {"If-None-Match": f'"{digest(manifest())}"'}

    async with client.get("/v2/ci/app/manifests/tag", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
        assert answer.headers["Docker-Content-Digest"] == digest(manifest())


async def test_a_charset_is_not_part_of_the_type(client: Client) -> None:
    """end-7: what clients append to Content-Type is not given back to others."""
    await push_manifest(client, "tag", manifest(), f"{MANIFEST}; charset=utf-8")

    async with client.head("/v2/ci/app/manifests/tag") as answer:
        assert answer.headers["Content-Type"] == MANIFEST


@pytest.mark.parametrize("tags", ["tag=../x", "tag=", "tag=ok&tag=.hidden"])
async def test_a_push_with_a_bad_tag_sets_none(client: Client, tags: str) -> None:
    """end-7: one bad `tag` parameter refuses the whole push."""
    assert (await push_manifest(client, f"{digest(manifest())}?{tags}", manifest())).status == 400
    async with client.get("/v2/ci/app/tags/list") as answer:
        assert answer.status == 404
