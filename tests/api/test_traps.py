"""Each behaviour of real clients that has failed builds on some registry, as a test.

BuildKit's are explained in containerd's and BuildKit's own sources; aiohttp's are its defaults.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from cacheproxy.api.errors import STATUS
from cacheproxy.config import load
from tests.api.wire import (
    INDEX,
    MANIFEST,
    UPLOADS,
    begin,
    digest,
    manifest,
    push_blob,
    push_manifest,
    raw,
)
from tests.exposition import Counted, counted_in
from tests.server import serving

Client = aiohttp.ClientSession

_LARGE = 32 << 20
"""More than the sockets between a client and a server hold."""


async def test_a_put_may_idle_for_longer_than_headers_may(tmp_path: Path) -> None:
    """BuildKit opens a PUT before it has the bytes, and may fetch them for minutes first."""
    async with serving(tmp_path / "data", server__header_timeout=0.05) as client:
        path = await begin(client)
        async with raw(client) as wire:
            head = f"PUT {path}?digest={digest(b'late')} HTTP/1.1\r\nHost: x\r\n"
            await wire.send(f"{head}Content-Length: 4\r\n\r\n")
            assert await wire.silent(0.2)
            await wire.send(b"late")

            assert (await wire.answer())[0] == 201


async def test_a_body_that_idles_for_too_long_is_given_up(tmp_path: Path) -> None:
    """A client that died behind a firewall does not hold its upload for ever."""
    async with serving(tmp_path / "data", server__body_idle_timeout=0.05) as client:
        path = await begin(client)
        async with raw(client) as wire:
            await wire.send(f"PUT {path}?digest={digest(b'late')} HTTP/1.1\r\n")
            await wire.send("Host: x\r\nContent-Length: 4\r\n\r\nla")

            assert (await wire.answer())[0] == 408
    assert list((tmp_path / "data" / ".spool").iterdir()) == []


async def test_a_client_that_takes_nothing_for_too_long_is_given_up(tmp_path: Path) -> None:
    """Its connection is closed in the middle of the answer, which is in progress no longer."""
    async with serving(tmp_path / "data", server__body_idle_timeout=0.05) as client:
        found = await push_blob(client, bytes(_LARGE))
        async with raw(client) as wire:
            await wire.send(f"GET /v2/ci/app/blobs/{found} HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await wire.answer())[0] == 200
            async with asyncio.timeout(60):
                while await _downloads(client, "total", "code") != {("499",): 1}:
                    pass  # the metrics are asked until they tell

            assert await _downloads(client, "in_progress") == {}
            assert len(await wire.ends()) < _LARGE


async def _downloads(client: Client, what: str, *by: str) -> Counted:
    """How many GETs of blobs have ended, or have not."""
    async with client.get("/metrics") as answer:
        name = f"cacheproxy_http_requests_{what}"
        return counted_in(await answer.text(), name, *by, endpoint="end-2")


async def test_an_existing_blob_is_acknowledged_only_after_its_body(client: Client) -> None:
    """An answer before the end of the body makes Go drop the connection and the build fail."""
    content = b"twice" * 1000
    await push_blob(client, content)
    path = await begin(client)
    async with raw(client) as wire:
        await wire.send(f"PUT {path}?digest={digest(content)} HTTP/1.1\r\nHost: x\r\n")
        await wire.send(f"Content-Length: {len(content)}\r\n\r\n")
        await wire.send(content[:-1])
        assert await wire.silent(0.1)
        await wire.send(content[-1:])

        assert (await wire.answer())[0] == 201


async def test_two_puts_of_one_digest_at_once_both_succeed(client: Client) -> None:
    """One BuildKit pushes an image and a cache in parallel, with the same layers."""
    content = b"both" * 1000
    paths = [await begin(client), await begin(client)]
    async with raw(client) as one, raw(client) as other:
        for wire, path in zip((one, other), paths, strict=True):
            await wire.send(f"PUT {path}?digest={digest(content)} HTTP/1.1\r\nHost: x\r\n")
            await wire.send(f"Content-Length: {len(content)}\r\n\r\n")
            await wire.send(content[:100])
        await one.send(content[100:])
        assert (await one.answer())[0] == 201
        assert await other.silent(0.1)  # it has more to send
        await other.send(content[100:])

        assert (await other.answer())[0] == 201


async def test_the_put_of_an_upload_answers_201_and_can_be_repeated(client: Client) -> None:
    """202 is an error to containerd, and a PUT whose answer was lost is sent again from byte 0."""
    path = await begin(client)
    for _ in range(2):
        async with client.put(f"{path}?digest={digest(b'x')}", data=b"x") as answer:
            assert answer.status == 201


async def test_the_location_of_an_upload_is_relative_and_without_escapes(client: Client) -> None:
    """containerd decodes the path and sorts the query, so neither may matter."""
    parts = urlsplit(await begin(client))

    assert (parts.scheme, parts.netloc, parts.query) == ("", "", "")
    assert "%" not in parts.path
    assert parts.path.startswith(UPLOADS)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path", ["", f"ci/app/blobs/{digest(b'content')}", "ci/app/manifests/tag"], ids=str
)
async def test_any_look_may_carry_ns(client: Client, path: str, method: str) -> None:
    """Mirrors are told the registry that is meant."""
    await push_blob(client, b"content")
    await push_manifest(client, "tag", manifest())

    async with client.request(method, f"/v2/{path}?ns=docker.io") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["tags/list", f"referrers/{digest(b'x')}"])
async def test_any_list_may_carry_ns(client: Client, path: str) -> None:
    """Referrers are asked for at mirrors too."""
    await push_manifest(client, "tag", manifest())

    async with client.get(f"/v2/ci/app/{path}?ns=docker.io") as answer:
        assert answer.status == 200


async def test_any_push_may_carry_ns(client: Client) -> None:
    """Uploads do since v0.32."""
    async with client.post(f"{UPLOADS}?ns=docker.io") as answer:
        path = answer.headers["Location"]
    async with client.patch(f"{path}?ns=docker.io", data=b"con") as answer:
        path = answer.headers["Location"]
    end = f"{path}?digest={digest(b'content')}&ns=docker.io"
    async with client.put(end, data=b"tent") as answer:
        assert answer.status == 201
    assert (await push_manifest(client, "tag?ns=docker.io", manifest())).status == 201
    async with client.get("/v2/ci/app/manifests/tag") as answer:
        assert await answer.read() == manifest()


async def test_head_is_answered_itself_with_the_length(client: Client) -> None:
    """A redirect of HEAD to what is signed for GET is refused there."""
    found = await push_blob(client, b"content")

    async with client.head(f"/v2/ci/app/blobs/{found}", allow_redirects=False) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Length"] == "7"
        assert await answer.read() == b""


async def test_head_of_a_tag_has_exactly_the_type_that_was_pushed(client: Client) -> None:
    """With another type, be it by a charset, BuildKit asks for the digest under /blobs/."""
    await push_manifest(client, "cache", manifest())

    async with client.head("/v2/ci/app/manifests/cache") as answer:
        assert answer.headers["Content-Type"] == MANIFEST
        assert answer.headers["Docker-Content-Digest"] == digest(manifest())
        assert answer.headers["Content-Length"] == str(len(manifest()))


def test_idle_connections_live_longer_than_those_of_buildkit() -> None:
    """Whoever closes first loses a request; BuildKit keeps connections for 120 seconds."""
    assert load({}, {}).server.keepalive_timeout > 120


async def test_an_idle_connection_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """That time is what was set, and not aiohttp's."""
    async with (
        serving(tmp_path / "data", server__keepalive_timeout=0.1) as client,
        raw(client) as wire,
    ):
        await wire.send("HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.answer())[0] == 200

        assert await wire.ends() == b""


async def test_a_connection_is_kept_for_the_next_request(client: Client) -> None:
    """Several requests use one connection, an upload among them."""
    async with raw(client) as wire:
        for _ in range(2):
            await wire.send("HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await wire.answer())[0] == 200
        await wire.send(f"POST {UPLOADS}?digest={digest(b'x')} HTTP/1.1\r\nHost: x\r\n")
        await wire.send("Content-Length: 1\r\n\r\nx")
        assert (await wire.answer())[0] == 201
        await wire.send("HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.answer())[0] == 200


async def test_a_body_is_stored_as_it_was_sent_whatever_its_encoding(client: Client) -> None:
    """aiohttp inflates bodies by default, which breaks their digests and invites bombs."""
    content = gzip.compress(b"0" * 100_000)
    headers = {"Content-Encoding": "gzip"}
    path = f"{UPLOADS}?digest={digest(content)}"
    async with client.post(path, data=content, headers=headers) as answer:
        assert answer.status == 201

    async with client.get(f"/v2/ci/app/blobs/{digest(content)}") as answer:
        assert await answer.read() == content


async def test_an_answer_is_never_encoded(client: Client) -> None:
    """A client that resumes counts decoded bytes, so an encoded body cannot be resumed."""
    found = await push_blob(client, b"0" * 100_000)
    headers = {"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8", "Range": "bytes=10-19"}

    async with client.get(f"/v2/ci/app/blobs/{found}", headers=headers) as answer:
        assert answer.status == 206
        assert "Content-Encoding" not in answer.headers
        assert await answer.read() == b"0" * 10


@pytest.mark.parametrize("suffix", [".gz", ".br", ".zst"])
async def test_a_file_beside_a_blob_is_none_of_its_encodings(tmp_path: Path, suffix: str) -> None:
    """aiohttp would send it in place of the blob to who takes that encoding."""
    data = tmp_path / "data"
    async with serving(data) as client:
        found = await push_blob(client, b"content")
        [file] = data.rglob(found.removeprefix("sha256:"))
        file.with_name(file.name + suffix).write_bytes(b"other")

        headers = {"Accept-Encoding": "gzip, br, zstd"}
        async with client.get(f"/v2/ci/app/blobs/{found}", headers=headers) as answer:
            assert await answer.read() == b"content"


async def test_a_manifest_may_name_a_layer_twice(client: Client) -> None:
    """BuildKit's cache manifests do, when two chains share a blob."""
    layer = {"mediaType": "application/octet-stream", "digest": digest(b"l"), "size": 1}

    assert (await push_manifest(client, "t", manifest(layers=[layer, layer]))).status == 201


async def test_a_manifest_may_come_before_its_layers_and_its_subject(client: Client) -> None:
    """cosign pushes manifests first, and buildx attestations before what they are about."""
    layer = {"mediaType": "application/octet-stream", "digest": digest(b"absent"), "size": 6}
    subject = {"mediaType": MANIFEST, "digest": digest(b"absent"), "size": 6}
    answer = await push_manifest(client, "t", manifest(layers=[layer], subject=subject))

    assert answer.status == 201
    assert answer.headers["OCI-Subject"] == digest(b"absent")


async def test_the_children_of_an_index_may_be_blobs(client: Client) -> None:
    """BuildKit's caches were indexes of layers until v0.21, and still can be."""
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": 1}
    config = {"mediaType": "application/vnd.buildkit.cacheconfig.v0", "size": 2}
    children = [{**layer, "digest": digest(b"l")}, {**config, "digest": digest(b"{}")}]
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}

    answer = await push_manifest(client, "cache", json.dumps(body).encode(), INDEX)

    assert answer.status == 201


async def test_a_client_that_waits_to_be_told_to_go_on_is_told(client: Client) -> None:
    """curl and docker send `Expect: 100-continue` with large bodies."""
    async with raw(client) as wire:
        await wire.send(f"POST {UPLOADS}?digest={digest(b'x')} HTTP/1.1\r\nHost: x\r\n")
        await wire.send("Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert (await wire.answer())[0] == 100
        await wire.send(b"x")

        assert (await wire.answer())[0] == 201


async def test_a_client_that_waits_and_is_refused_sends_no_body(client: Client) -> None:
    """The connection ends then, for what follows on it could be the body or the next request."""
    async with raw(client) as wire:
        await wire.send(f"POST {UPLOADS}?digest=nonsense HTTP/1.1\r\nHost: x\r\n")
        await wire.send("Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        status, head = await wire.answer()

        assert status == 400
        assert "connection: close" in head.lower()


async def test_a_long_bearer_token_is_taken(client: Client) -> None:
    """Identity providers issue tokens of many KiB; aiohttp's limit is 8190 bytes."""
    headers = {"Authorization": "Bearer " + "x" * 16_000}
    async with client.get("/v2/", headers=headers) as answer:
        assert answer.status == 200


async def test_a_long_path_is_taken(client: Client) -> None:
    """Tokens of upload sessions and names make paths longer than aiohttp's limit, 8190 bytes."""
    await push_manifest(client, "tag", manifest())

    async with client.get(f"/v2/ci/app/tags/list?last={'x' * 16_000}") as answer:
        assert answer.status == 200


async def test_a_manifest_of_four_mib_is_taken(client: Client) -> None:
    """The spec asks for it; aiohttp's limit on bodies is 1 MiB."""
    filler = "x" * ((4 << 20) - len(manifest(annotations={"filler": ""})))
    body = manifest(annotations={"filler": filler})
    assert len(body) == 4 << 20

    assert (await push_manifest(client, "large", body)).status == 201


@pytest.mark.parametrize("status", [429, 500, 502])
def test_no_error_is_one_that_fails_a_build_at_once(status: int) -> None:
    """BuildKit repeats a request after 429 without pause, and a manifest after 50x not at all."""
    assert status not in STATUS.values()


async def test_a_digest_in_a_path_may_be_escaped(client: Client) -> None:
    """Some clients write `sha256%3A`."""
    found = await push_blob(client, b"content")
    path = f"/v2/ci/app/blobs/{found.replace(':', '%3A')}"
    async with raw(client) as wire:
        await wire.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (await wire.answer())[0] == 200


@pytest.mark.parametrize("name", ["blobs/uploads/x", "manifests/latest", "tags/list", "v2"])
async def test_a_repository_may_be_called_like_an_endpoint(client: Client, name: str) -> None:
    """Paths are read from their end."""
    found = await push_blob(client, b"content", name)

    async with client.get(f"/v2/{name}/blobs/{found}") as answer:
        assert await answer.read() == b"content"


async def test_a_mount_that_began_an_upload_can_be_cancelled(client: Client) -> None:
    """skopeo deletes the session that it did not want; it expects 204."""
    path = f"{UPLOADS}?mount={digest(b'absent')}&from=other/app"
    async with client.post(path, json={}) as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    async with client.delete(location) as answer:
        assert answer.status == 204
    async with client.get(location) as answer:
        assert answer.status == 404


async def test_a_mount_may_leave_out_where_from(client: Client) -> None:
    """regclient mounts what may be anywhere; every repository of the namespace counts."""
    found = await push_blob(client, b"content", "other/app")

    async with client.post(f"{UPLOADS}?mount={found}") as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == f"/v2/ci/app/blobs/{found}"


async def test_the_range_of_a_patch_has_no_unit(client: Client) -> None:
    """Docker's classic engine cannot read `bytes=0-3`."""
    path = await begin(client)
    async with client.patch(path, data=b"four") as answer:
        assert answer.status == 202
        assert answer.headers["Range"] == "0-3"
        assert answer.headers["Docker-Upload-UUID"]


async def test_referrers_have_exactly_the_type_of_an_index(client: Client) -> None:
    """go-containerregistry falls back to a tag for anything else, a charset included; never 404."""
    async with client.get(f"/v2/no/where/referrers/{digest(b'x')}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == INDEX


async def test_slow_headers_end_the_connection(tmp_path: Path) -> None:
    """A client that sends its head byte by byte is closed when the time for it is over."""
    async with (
        serving(tmp_path / "data", server__header_timeout=0.1) as client,
        raw(client) as wire,
    ):
        await wire.send("GET /v2/ HTTP/1.1\r\nHost:")

        assert await wire.ends() == b""


async def test_slow_headers_end_a_connection_that_was_kept_too(tmp_path: Path) -> None:
    """Each request has as much time for its head as the first one, and no more."""
    async with (
        serving(tmp_path / "data", server__header_timeout=0.3) as client,
        raw(client) as wire,
    ):
        await wire.send("HEAD /v2/ HTTP/1.1\r\nHost:")
        assert await wire.silent(0.01)
        await wire.send(" x\r\n\r\n")
        assert (await wire.answer())[0] == 200
        await wire.send("GET /v2/ HTTP/1.1\r\nHost:")

        assert await wire.ends() == b""


async def test_a_new_connection_may_be_idle_for_longer_than_headers(tmp_path: Path) -> None:
    """Go opens connections ahead of need; closing those would race with their first request."""
    async with (
        serving(tmp_path / "data", server__header_timeout=0.05) as client,
        raw(client) as wire,
    ):
        assert await wire.silent(0.2)
        await wire.send("HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (await wire.answer())[0] == 200


async def test_aiohttp_writes_no_line_of_its_own(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request is logged once already, and aiohttp's line costs a third of one."""
    caplog.set_level(logging.INFO)
    async with client.get("/v2/") as answer:
        assert answer.status == 200

    assert [record.name for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_many_clients_may_ask_at_once(client: Client) -> None:
    """Pipelined and parallel requests are answered each for itself."""
    found = await push_blob(client, b"content")

    async def fetch() -> bytes:
        async with client.get(f"/v2/ci/app/blobs/{found}") as answer:
            return await answer.read()

    assert set(await asyncio.gather(*(fetch() for _ in range(50)))) == {b"content"}
