"""Input that means harm: names, bodies and bytes that are no request."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.api.wire import UPLOADS, begin, digest, push_manifest, raw
from tests.server import serving

Client = aiohttp.ClientSession


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "a/../b", "a//b", "A", "_x", "a%00b", "a%2f..%2fb", "x" * 256, "a b"]
)
async def test_what_is_no_name_leads_nowhere(client: Client, tmp_path: Path, name: str) -> None:
    """Traversal and nonsense in names are refused, and make no file anywhere."""
    before = set(tmp_path.rglob("*"))
    async with raw(client) as wire:
        target = f"/v2/{name}/blobs/uploads/?digest={digest(b'x')}".replace(" ", "%20")
        await wire.send(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        status, _ = await wire.answer()

    assert status in (400, 404)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("tag", ["..", "%2e%2e", ".hidden", "a%2fb", "-", "x" * 129, "sha256:x"])
async def test_what_is_no_tag_leads_nowhere(client: Client, tag: str) -> None:
    """Traversal and nonsense in tags and digests are refused."""
    async with raw(client) as wire:
        await wire.send(f"GET /v2/ci/app/manifests/{tag} HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (await wire.answer())[0] in (400, 404)


@pytest.mark.parametrize(
    "request_text",
    [
        "NONSENSE\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + "x" * 40_000 + "\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 200 + "\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "\x16\x03\x01 TLS to a plain port\r\n\r\n",
    ],
    ids=["words", "long header", "many headers", "negative length", "tls"],
)
async def test_what_is_not_http_is_refused_in_the_form_of_the_spec(
    client: Client, request_text: str
) -> None:
    """400, JSON, and the end of the connection."""
    async with raw(client) as wire:
        await wire.send(request_text)
        status, _ = await wire.answer()

        assert status == 400
        assert b'"errors"' in await wire.ends()


async def test_an_endless_body_is_cut_at_the_limit(tmp_path: Path) -> None:
    """A body without a length cannot fill the disk; nothing of it stays."""
    async with serving(tmp_path / "data", limits__blob_bytes="1MiB") as client:
        path = await begin(client)
        async with raw(client) as wire:
            await wire.send(f"PUT {path}?digest={digest(b'x')} HTTP/1.1\r\nHost: x\r\n")
            await wire.send("Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(17):
                await wire.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")

            assert (await wire.answer())[0] == 413
        assert list((tmp_path / "data" / ".spool").iterdir()) == []


@pytest.mark.parametrize("body", ["5\r\nabc", "zz\r\n"], ids=["truncated", "not a chunk"])
async def test_a_broken_body_stores_nothing(client: Client, tmp_path: Path, body: str) -> None:
    """Whatever breaks off or is badly encoded leaves no trace."""
    path = await begin(client)
    async with raw(client) as wire:
        await wire.send(f"PATCH {path} HTTP/1.1\r\nHost: x\r\n")
        await wire.send(f"Transfer-Encoding: chunked\r\n\r\n{body}")
    async with client.get(path) as answer:
        assert answer.headers["Range"] == "0-0"

    assert list((tmp_path / "data" / "default").rglob("*")) == []


async def test_a_fault_of_ours_says_nothing_of_itself(client: Client, tmp_path: Path) -> None:
    """500 and 503 tell no path, name or traceback."""
    folder = tmp_path / "data" / "default" / "blobs"
    folder.parent.mkdir()
    folder.write_text("a file where a folder belongs")

    async with client.post(f"{UPLOADS}?digest={digest(b'x')}", data=b"x") as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"]
        assert str(tmp_path) not in await answer.text()


async def test_a_mistake_of_a_client_is_no_fault_of_ours(client: Client) -> None:
    """It is told in the line of the request, and nobody is woken by it."""
    with capture_logs() as lines:
        assert (await push_manifest(client, "tag", b'{"layers": [')).status == 400

    assert [line["log_level"] for line in lines if line["event"] != "request"] == []
