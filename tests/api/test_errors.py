"""Errors on every endpoint there is, and what holds for every answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import aiohttp
import pytest

from cacheproxy.api.errors import STATUS, render
from cacheproxy.errors import (
    MethodUnsupported,
    RangeNotSatisfiable,
    RegistryError,
    UploadOutOfOrder,
)
from tests.api.wire import BLOB, METHODS, UPLOADS, digest, manifest, push_blob, push_manifest, raw

Client = aiohttp.ClientSession


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


def _code(body: bytes) -> str:
    [entry] = json.loads(body)["errors"]
    assert set(entry) == {"code", "message", "detail"}
    return str(entry["code"])


@pytest.mark.parametrize("path", METHODS)
async def test_each_path_tells_the_methods_it_takes(client: Client, path: str) -> None:
    """RFC 9110, 15.5.6: another method is 405 UNSUPPORTED, and Allow lists all that there are."""
    async with client.request("OPTIONS", path) as answer:
        assert (answer.status, _code(await answer.read())) == (405, "UNSUPPORTED")
        assert set(answer.headers["Allow"].split(", ")) == METHODS[path]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2x",
        "/v1/",
        "/v2/ci/app/",
        "/v2/ci/app/tags",
        "/v2/ci/app/tags/list/",
        "/v2/tags/list",
        "/v2//tags/list",
        "/v2/blobs/uploads",
        "/v2//blobs/uploads/",
        "/v2/blobs/uploads/",
        "/v2/ci/app/blobs/",
        "/v2/ci/app/manifests/",
        "/v2/ci/app/unknown/x",
        f"/v2/blobs/{digest(b'x')}",
        "/v2/x",
        "/v2/x/y",
        "/v2//blobs/x",
        f"{UPLOADS}session/more",
        "/healthz/",
        "/metrics/x",
    ],
)
async def test_a_path_of_no_endpoint_is_not_found(client: Client, path: str) -> None:
    """404 in the form of the spec, for paths that nearly are one too."""
    async with client.get(path) as answer:
        assert answer.status == 404
        assert answer.headers["Content-Type"] == "application/json"
        assert _code(await answer.read()) in ("ENDPOINT_UNKNOWN", "NAME_INVALID")


async def test_the_root_of_the_api_names_its_version(client: Client) -> None:
    """end-1: docker and skopeo ask for it before anything else."""
    for path in ("/v2/", "/v2"):
        async with client.get(path) as answer:
            assert (answer.status, await answer.json()) == (200, {})
            assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"


async def test_no_answer_names_a_charset(client: Client) -> None:
    """Clients compare media types as text."""
    found = await push_blob(client, b"x")
    await push_manifest(client, "tag", manifest())
    paths = [path for path, methods in METHODS.items() if "GET" in methods]
    for path in (*paths, f"/v2/ci/app/blobs/{found}", "/nowhere"):
        async with client.get(path) as answer:
            assert "charset" not in answer.headers.get("Content-Type", "")


async def test_an_error_of_head_has_no_body(client: Client) -> None:
    """RFC 9110, 9.3.2: or the client would take it for the next answer on its connection."""
    async with raw(client) as wire:
        for status, path in ((404, BLOB), (200, "/v2/")):
            await wire.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await wire.answer())[0] == status
