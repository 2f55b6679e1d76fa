"""What operators ask of a server: /healthz, /readyz and /metrics."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import get_ident

import aiohttp
import pytest

from cacheproxy.errors import Denied
from cacheproxy.telemetry import Metrics
from tests.api.test_access import Refusing
from tests.api.wire import UPLOADS, digest, push_blob
from tests.server import serving

Client = aiohttp.ClientSession


async def _metric(client: Client, line: str) -> float:
    """The value of one series, 0 where it is not shown yet."""
    async with client.get("/metrics") as answer:
        text = await answer.text()
    values = [each.rpartition(" ")[2] for each in text.splitlines() if each.startswith(line + " ")]
    return float(values[0]) if values else 0.0


@pytest.mark.parametrize(("path", "said"), [("/healthz", "alive\n"), ("/readyz", "ready\n")])
async def test_a_server_that_works_says_so(client: Client, path: str, said: str) -> None:
    """200 in a word."""
    async with client.get(path) as answer:
        assert (answer.status, await answer.text()) == (200, said)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_access(tmp_path: Path, path: str) -> None:
    """Probes have no credentials."""
    async with serving(tmp_path / "data", Refusing(Denied())) as client, client.get(path) as answer:
        assert answer.status == 200


async def test_a_server_that_lost_its_folder_is_not_ready_but_alive(tmp_path: Path) -> None:
    """503 takes it out of service without a restart, and its reason tells no path."""
    async with serving(tmp_path / "data") as client:
        shutil.rmtree(tmp_path / "data")
        async with client.get("/readyz") as answer:
            assert answer.status == 503
            assert str(tmp_path) not in await answer.text()
        async with client.get("/healthz") as answer:
            assert answer.status == 200


async def test_metrics_have_the_type_that_prometheus_reads(client: Client) -> None:
    """The text format, with its version."""
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")


async def test_metrics_are_made_beside_the_event_loop(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes milliseconds, in which no request would be answered."""
    monkeypatch.setattr(Metrics, "exposition", lambda _: (str(get_ident()).encode(), "text/plain"))

    async with client.get("/metrics") as answer:
        assert int(await answer.text()) != get_ident()


async def test_requests_are_counted_with_endpoint_method_and_status(client: Client) -> None:
    """A 404 is counted as well as a 200."""
    found = await push_blob(client, b"content")
    for name in (found, found, digest(b"absent")):
        async with client.get(f"/v2/ci/app/blobs/{name}"):
            pass

    counter = 'cacheproxy_http_requests_total{{code="{}",endpoint="end-2",method="GET"}}'
    assert await _metric(client, counter.format(200)) == 2
    assert await _metric(client, counter.format(404)) == 1


async def test_bytes_are_counted_both_ways(client: Client) -> None:
    """By what was taken and sent, whole and in parts."""
    found = await push_blob(client, b"0123456789")
    path = f"/v2/ci/app/blobs/{found}"
    for headers in ({}, {"Range": "bytes=0-3"}):
        async with client.get(path, headers=headers):
            pass
    async with client.head(path):
        pass

    assert await _metric(client, 'cacheproxy_http_request_bytes_total{endpoint="end-4b"}') == 10
    assert await _metric(client, 'cacheproxy_http_response_bytes_total{endpoint="end-2"}') == 14


async def test_a_method_that_clients_invent_makes_no_series_of_its_own(client: Client) -> None:
    """Labels come from a fixed set, or a client could fill the memory."""
    for method in ("OPTIONS", "TRACE"):
        async with client.request(method, UPLOADS):
            pass
    async with client.get("/metrics") as answer:
        text = await answer.text()

    assert 'method="other"' in text
    assert "TRACE" not in text


async def test_paths_that_clients_invent_make_no_series_of_their_own(client: Client) -> None:
    """Neither names nor paths are labels."""
    for path in ("/v2/secret/name/tags/list", "/secret/path"):
        async with client.get(path):
            pass
    async with client.get("/metrics") as answer:
        assert "secret" not in await answer.text()


async def test_nothing_is_in_progress_when_all_is_answered(client: Client) -> None:
    """The gauge goes down by the label by which it went up, however the request ended."""
    found = await push_blob(client, b"content")
    async with client.post(f"{UPLOADS}?mount={found}&from=ci/app"):
        pass
    async with client.post(f"{UPLOADS}?digest=nonsense"):
        pass
    async with client.get("/nowhere"):
        pass
    async with client.get("/metrics") as answer:
        text = await answer.text()

    gauges = [each for each in text.splitlines() if "_requests_in_progress{" in each]
    assert gauges
    assert all(each.endswith(" 0.0") for each in gauges)
