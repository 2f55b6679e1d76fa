"""Several workers, and one scrape."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.api.wire import digest
from tests.exposition import Counted, counted_in
from tests.real.prometheus import lint
from tests.server import Server

_CONNECTIONS = 40
_CONTENT = b"content"
_PATH = f"/v2/ci/app/blobs/uploads/?digest={digest(_CONTENT)}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two workers, who have room for the names of two clients."""
    flags = ("--workers=2", "--clients-header=X-Runner", "--clients-names=2")
    with Server.running(tmp_path, *flags) as running:
        running.daemon.wait_for(lambda: running.daemon.log.count('"event":"serving"') == 2 or None)
        yield running


@contextmanager
def _pushing(server: Server, client: str) -> Iterator[http.client.HTTPConnection]:
    """A connection on which it was asked for a blob, and on which half of one was sent."""
    with closing(http.client.HTTPConnection(server.host, timeout=60)) as connection:
        connection.request("HEAD", f"/v2/ci/app/blobs/{digest(b'absent')}", headers=_named(client))
        connection.getresponse().read()
        connection.putrequest("POST", _PATH)
        for name, value in (_named(client) | {"Content-Length": str(len(_CONTENT))}).items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(_CONTENT[:-1])
        yield connection


def _named(client: str) -> dict[str, str]:
    return {"X-Runner": client}


def _counted(server: Server, name: str, *by: str) -> Counted:
    return counted_in(server.get("/metrics"), name, *by)


def _connections(server: Server) -> list[int]:
    """How many sockets each worker has."""
    parent = server.daemon.pid
    workers = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    links = [list(Path(f"/proc/{worker}/fd").iterdir()) for worker in workers]
    return [sum(_is_socket(link) for link in each) for each in links]


def _is_socket(link: Path) -> bool:
    try:
        return os.readlink(link).startswith("socket:")
    except FileNotFoundError:  # it was closed meanwhile
        return False


def test_a_scrape_shows_the_sum_of_what_all_workers_count(server: Server) -> None:
    """Counters and gauges; and a client has its name in all workers, or in none."""
    idle = _connections(server)
    with ExitStack() as held:
        pushing = [
            held.enter_context(_pushing(server, f"runner{number % 4}"))
            for number in range(_CONNECTIONS)
        ]
        everything = {(): float(_CONNECTIONS)}
        server.daemon.wait_for(
            lambda: _counted(server, "cacheproxy_uploads_in_progress") == everything or None
        )
        assert all(now > then for now, then in zip(_connections(server), idle, strict=True))
        for connection in pushing:
            connection.send(_CONTENT[-1:])
            assert connection.getresponse().status == 201

    server.daemon.wait_for(lambda: _counted(server, "cacheproxy_uploads_in_progress") == {} or None)
    uploads = _counted(server, "cacheproxy_blob_uploads_total", "result")
    looks = _counted(server, "cacheproxy_client_cache_requests_total", "client", "result")
    assert uploads == {("stored",): _CONNECTIONS}
    assert looks == {
        ("runner0", "miss"): _CONNECTIONS / 4,
        ("runner1", "miss"): _CONNECTIONS / 4,
        ("other", "miss"): _CONNECTIONS / 2,
    }


def test_prometheus_finds_no_fault_with_the_sum(server: Server) -> None:
    """It is put together in another way than what one process shows."""
    server.get("/v2/")

    lint(server.get("/metrics"))
