"""What holds for every request: errors, access, and input that means harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from cacheproxy.access.policy import Action
from cacheproxy.api.errors import STATUS, render
from cacheproxy.errors import (
    Denied,
    MethodUnsupported,
    RangeNotSatisfiable,
    RegistryError,
    Unauthorized,
    UploadOutOfOrder,
)
from cacheproxy.oci.reference import Repository
from tests.api.wire import UPLOADS, begin, digest, push_blob, raw
from tests.server import serving

Client = aiohttp.ClientSession

_ENDPOINTS = [
    ("GET", "/v2/"),
    ("GET", "/v2/_catalog"),
    ("GET", f"/v2/ci/app/blobs/{digest(b'x')}"),
    ("HEAD", f"/v2/ci/app/blobs/{digest(b'x')}"),
    ("DELETE", f"/v2/ci/app/blobs/{digest(b'x')}"),
    ("POST", UPLOADS),
    ("PATCH", UPLOADS + "session"),
    ("PUT", UPLOADS + "session"),
    ("GET", UPLOADS + "session"),
    ("DELETE", UPLOADS + "session"),
    ("GET", "/v2/ci/app/manifests/t"),
    ("HEAD", "/v2/ci/app/manifests/t"),
    ("PUT", "/v2/ci/app/manifests/t"),
    ("DELETE", "/v2/ci/app/manifests/t"),
    ("GET", "/v2/ci/app/tags/list"),
    ("GET", f"/v2/ci/app/referrers/{digest(b'x')}"),
]


def _every(kind: type[RegistryError]) -> Iterator[type[RegistryError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _every(below)


def test_every_error_has_a_status() -> None:
    """The table knows each error that a room can raise, and no other."""
    assert set(STATUS) == set(_every(RegistryError))


@pytest.mark.parametrize("kind", STATUS, ids=lambda kind: kind.__name__)
def test_every_error_is_answered_in_the_form_of_the_spec(kind: type[RegistryError]) -> None:
    """distribution-spec, "Error codes": a list of code, message and detail."""
    error: RegistryError
    if kind in (RangeNotSatisfiable, UploadOutOfOrder):
        error = kind(5)
    elif kind is MethodUnsupported:
        error = MethodUnsupported(("GET",))
    else:
        error = kind("why")
    answer = render(error)
    assert isinstance(answer.body, bytes)

    [entry] = json.loads(answer.body)["errors"]

    assert set(entry) == {"code", "message", "detail"}
    assert entry["code"] == error.code.name


class _Refusing:
    """A policy that allows what is in `allowed` and refuses all else with `error`."""

    def __init__(self, error: RegistryError, allowed: set[tuple[Action, str]]) -> None:
        self._error = error
        self._allowed = allowed

    async def authorize(
        self, credentials: str | None, action: Action, repository: Repository | None
    ) -> None:
        if (action, str(repository)) not in self._allowed:
            raise self._error


@pytest.mark.parametrize(("error", "status"), [(Denied(), 403), (Unauthorized(), 401)])
async def test_every_endpoint_asks_whether_it_may(
    tmp_path: Path, error: RegistryError, status: int
) -> None:
    """Nothing is answered, not even with 404, before access is decided."""
    async with serving(tmp_path / "data", _Refusing(error, set())) as client:
        for method, path in _ENDPOINTS:
            async with client.request(method, path) as answer:
                assert (method, path, answer.status) == (method, path, status)


async def test_a_mount_needs_access_to_its_source(tmp_path: Path) -> None:
    """end-11: who may push here, and may not pull there, mounts nothing from there."""
    policy = _Refusing(Denied(), {(Action.PUSH, "ci/app"), (Action.PUSH, "other")})
    async with serving(tmp_path / "data", policy) as client:
        found = await push_blob(client, b"content", "other")
        async with client.post(f"{UPLOADS}?mount={found}&from=other") as answer:
            assert answer.status == 403


async def test_an_endpoint_names_the_methods_that_it_takes(client: Client) -> None:
    """RFC 9110, 15.5.6: 405 comes with Allow."""
    async with client.post("/v2/ci/app/tags/list") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/", "/v1/", "/v2", "/v2/x", "/v2/x/y", "/v2//blobs/x"])
async def test_an_unknown_path_is_an_error_in_the_form_of_the_spec(
    client: Client, path: str
) -> None:
    """Only /v2/ exists, with or without its last slash."""
    async with client.get(path) as answer:
        assert answer.status == (200 if path == "/v2" else 404)
        assert "errors" in await answer.json() or path == "/v2"


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
