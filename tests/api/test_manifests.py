"""Manifests and lists on the wire: end-3, end-7, end-8, end-9, end-12, and the catalog."""

from __future__ import annotations

import io
import json

import aiohttp
import pytest

from tests.api.wire import INDEX, MANIFEST, digest, manifest, next_page, push_manifest

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


@pytest.mark.parametrize(("n", "status"), [("0", 200), ("-1", 400), ("x", 400), ("9" * 30, 200)])
async def test_odd_page_lengths(client: Client, n: str, status: int) -> None:
    """end-8: none are none, nonsense is refused, and nobody gets more than a page."""
    await push_manifest(client, "t", manifest())

    async with client.get(f"/v2/ci/app/tags/list?n={n}") as answer:
        assert answer.status == status


async def test_an_unknown_repository_has_no_tags(client: Client) -> None:
    """end-8: 404 NAME_UNKNOWN."""
    async with client.get("/v2/no/where/tags/list") as answer:
        assert answer.status == 404
        assert (await answer.json())["errors"][0]["code"] == "NAME_UNKNOWN"


async def test_referrers_are_filtered(client: Client) -> None:
    """end-12: by artifactType, and the answer says so; a deleted one is gone."""
    subject = {"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}
    bodies = [
        manifest(subject=subject, artifactType=f"application/{name}", annotations={"n": name})
        for name in ("one", "two")
    ]
    for body in bodies:
        await push_manifest(client, digest(body), body)
    path = f"/v2/ci/app/referrers/{digest(b'subject')}?artifactType=application/one"
    async with client.get(path) as answer:
        [entry] = json.loads(await answer.read())["manifests"]
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert entry["annotations"] == {"n": "one"}
    assert (entry["digest"], entry["size"]) == (digest(bodies[0]), len(bodies[0]))
    async with client.delete(f"/v2/ci/app/manifests/{digest(bodies[0])}"):
        pass
    async with client.get(path) as answer:
        assert json.loads(await answer.read())["manifests"] == []


async def test_referrers_beyond_what_clients_read_go_on_another_page(client: Client) -> None:
    """end-12: a page stays below 4 MiB; following the links finds all."""
    subject = {"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}
    pushed = set()
    for number in range(6):
        body = manifest(subject=subject, annotations={"filler": f"{number}" * (1 << 20)})
        await push_manifest(client, digest(body), body)
        pushed.add(digest(body))
    found, path = [], f"/v2/ci/app/referrers/{digest(b'subject')}"
    while path:
        async with client.get(path) as answer:
            page = await answer.read()
            assert len(page) <= 4 << 20
            found += [entry["digest"] for entry in json.loads(page)["manifests"]]
            path = next_page(answer)

    assert (len(found), set(found)) == (6, pushed)


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
