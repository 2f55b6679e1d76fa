"""Referrers on the wire: end-12."""

from __future__ import annotations

import json

import aiohttp
import pytest

from tests.api.wire import INDEX, MANIFEST, digest, manifest, next_page, push_manifest

Client = aiohttp.ClientSession

_SUBJECT = {"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}
_REFERRERS = f"/v2/ci/app/referrers/{digest(b'subject')}"


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


async def test_referrers_of_nothing_are_an_empty_index(client: Client) -> None:
    """end-12: never 404, and no filter is claimed that was not asked for."""
    async with client.get(_REFERRERS) as answer:
        assert json.loads(await answer.read()) == {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [],
        }
        assert "OCI-Filters-Applied" not in answer.headers


async def test_referrers_of_no_digest_are_refused(client: Client) -> None:
    """end-12: 400 for a malformed digest."""
    async with client.get("/v2/ci/app/referrers/latest") as answer:
        assert answer.status == 400


@pytest.mark.parametrize("artifact_type", [None, "application/own"])
async def test_the_type_of_a_referrer_is_its_own_or_that_of_its_config(
    client: Client, artifact_type: str | None
) -> None:
    """end-12: artifactType where there is one, else the media type of the config."""
    fields = {"artifactType": artifact_type} if artifact_type else {}
    body = manifest(subject=_SUBJECT, **fields)
    await push_manifest(client, digest(body), body)

    async with client.get(_REFERRERS) as answer:
        [entry] = json.loads(await answer.read())["manifests"]
    assert entry["artifactType"] == (artifact_type or "application/vnd.oci.empty.v1+json")


async def test_an_index_may_be_a_referrer(client: Client) -> None:
    """end-12: with its own media type and artifactType."""
    fields = {"mediaType": INDEX, "subject": _SUBJECT, "artifactType": "application/x"}
    body = json.dumps({"schemaVersion": 2, "manifests": [], **fields}).encode()
    answer = await push_manifest(client, digest(body), body, INDEX)
    assert answer.headers["OCI-Subject"] == digest(b"subject")

    async with client.get(_REFERRERS) as answer:
        [entry] = json.loads(await answer.read())["manifests"]
    assert (entry["mediaType"], entry["artifactType"]) == (INDEX, "application/x")


async def test_a_filter_holds_on_every_page(client: Client) -> None:
    """end-12: the link keeps `artifactType`, and the walk finds all of it and nothing else."""
    pushed = set()
    for number in range(10):
        kind = f"application/{number % 2}"
        filler = {"filler": str(number) * (1 << 20)}
        body = manifest(subject=_SUBJECT, artifactType=kind, annotations=filler)
        await push_manifest(client, digest(body), body)
        if number % 2:
            pushed.add(digest(body))
    found, path, pages = [], f"{_REFERRERS}?artifactType=application/1", 0
    while path:
        async with client.get(path) as answer:
            assert answer.headers["OCI-Filters-Applied"] == "artifactType"
            found += [each["digest"] for each in json.loads(await answer.read())["manifests"]]
            path, pages = next_page(answer), pages + 1

    assert (sorted(found), pages) == (sorted(pushed), 2)
