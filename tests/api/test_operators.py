"""A listener of their own for operators: `metrics.listen`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest

from cacheproxy.errors import Denied
from tests.api.test_access import Refusing
from tests.api.wire import METHODS, push_blob
from tests.real.port import Port
from tests.server import serving

Client = aiohttp.ClientSession


@asynccontextmanager
async def _apart(folder: Path, access: Refusing | None = None) -> AsyncIterator[tuple[Client, str]]:
    """A client of a registry, and where operators ask it."""
    with closing(Port()) as port:
        async with serving(folder / "data", access, metrics__listen=port.host) as client:
            yield client, f"http://{port.host}"


async def _ask(client: Client, url: str) -> tuple[int, str]:
    async with client.get(url) as answer:
        return answer.status, await answer.text()


async def test_operators_are_told_what_clients_did(tmp_path: Path) -> None:
    """In the format of Prometheus, and also where it adds a query."""
    async with _apart(tmp_path) as (client, operators):
        await push_blob(client, b"content")
        for path in ("/metrics", "/metrics?name=x"):
            async with client.get(operators + path) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=")
                text = await answer.text()
            assert 'requests_total{code="201",endpoint="end-4b",method="POST"} 1.0' in text


async def test_clients_are_told_no_metrics(tmp_path: Path) -> None:
    """404, whoever they are; health is told to both."""
    async with _apart(tmp_path) as (client, operators):
        assert (await _ask(client, "/metrics"))[0] == 404
        for base in ("", operators):
            assert await _ask(client, f"{base}/healthz") == (200, "alive\n")
            assert await _ask(client, f"{base}/readyz") == (200, "ready\n")


async def test_operators_need_no_credentials(tmp_path: Path) -> None:
    """Whoever reaches the listener may ask; nobody is asked who that is."""
    door = Refusing(Denied())
    async with _apart(tmp_path, door) as (client, operators):
        assert (await _ask(client, f"{operators}/metrics"))[0] == 200
        assert (await _ask(client, "/metrics"))[0] == 404
    assert door.asked == []


@pytest.mark.parametrize("path", ["/", *METHODS])
async def test_the_registry_is_not_where_operators_are(tmp_path: Path, path: str) -> None:
    """What needs no credentials there must not lead to what is stored."""
    async with _apart(tmp_path) as (client, operators):
        for method in METHODS.get(path, {"GET"}):
            async with client.request(method, operators + path) as answer:
                assert answer.status == 404
