"""The process: how it starts, works in several, ends, and what it leaves."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import pty
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.kills import Ledger, Pusher, kill
from tests.real.process import Daemon, require_root
from tests.server import SERVE, Server

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_MOMENTS = (0, 1, 3, 10, 19)
"""How much is acknowledged before each kill: with 10, one of three has pushed all four that are
counted; with 19, one has done so again, and has moved its tag."""
_KINDS = {"at once", "large", "manifest", "tag", "no tag", "chunked"}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _push(host: str, content: bytes, *, chunked: bool = False) -> tuple[int, bytes]:
    """Push by one POST; the status and the body of the answer."""
    path = f"/v2/ci/app/blobs/uploads/?digest={_digest(content)}"
    return _send(host, "POST", path, iter([content]) if chunked else content)


def _send(host: str, method: str, path: str, body: bytes | Iterator[bytes]) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
        connection.request(method, path, body, {"Content-Type": _MANIFEST})
        with connection.getresponse() as answer:
            return answer.status, answer.read()


def _lines(daemon: Daemon) -> list[dict[str, object]]:
    return [json.loads(line) for line in daemon.log.splitlines()]


def _requests(daemon: Daemon) -> list[dict[str, object]]:
    return [line for line in _lines(daemon) if line["event"] == "request"]


def test_every_request_is_one_line_of_json(server: Server) -> None:
    """With what it was, how it ended, and the trace id that BuildKit sends."""
    request = urllib.request.Request(f"http://{server.host}/v2/?secret=x")
    request.add_header("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
    urllib.request.urlopen(request).close()

    server.daemon.wait_for_log('"event":"request"')
    [line] = _requests(server.daemon)

    assert (line["endpoint"], line["status"], line["trace"]) == ("end-1", 200, "a" * 32)
    assert "secret" not in json.dumps(line)


def test_a_line_about_a_push_names_what_was_pushed(server: Server) -> None:
    """The repository and the digest, as they are written everywhere."""
    assert _push(server.host, b"content")[0] == 201

    server.daemon.wait_for_log('"event":"audit"')
    [line] = [line for line in _lines(server.daemon) if line["event"] == "audit"]

    assert (line["repository"], line["digest"]) == ("ci/app", _digest(b"content"))


def test_health_and_metrics_are_not_logged(server: Server) -> None:
    """They are asked every few seconds, and say nothing new."""
    for path in ("/healthz", "/readyz", "/metrics"):
        server.get(path)

    assert _requests(server.daemon) == []


def test_a_person_at_a_terminal_is_told_what_to_do(tmp_path: Path) -> None:
    """Where it listens, where metrics are, where it stores, and the line for buildx."""
    ours, theirs = pty.openpty()
    listen = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    command = [sys.executable, "-m", "cacheproxy", "serve", *listen]
    with subprocess.Popen(
        [*command, f"--storage=file://{tmp_path}"], stdout=theirs, stdin=theirs
    ) as process:
        said = b""
        while b"serving" not in said:
            said += os.read(ours, 4096)
        process.terminate()
    os.close(ours)
    os.close(theirs)

    text = said.decode()
    assert "listens on   http://127.0.0.1:" in text
    assert re.search(r"metrics on   http://127\.0\.0\.1:\d+/metrics", text)
    assert f"file://{tmp_path}" in text
    assert "docker buildx build --cache-to type=registry,ref=localhost:" in text


@contextmanager
def _without_flags(folder: Path) -> Iterator[str]:
    """A server that is told nothing but where to listen; `folder` is where its user's data is."""
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("CACHEPROXY_")},
        "XDG_DATA_HOME": str(folder),
        "CACHEPROXY_SERVER__LISTEN": "127.0.0.1:0",
    }
    with Daemon.running(SERVE, environment=environment, log=folder / "server.log") as daemon:
        yield daemon.wait_for_log(r'"listen":"([^"]+)"')[1]
        daemon.kill_all()


def test_a_server_without_flags_keeps_its_data_where_data_belongs(tmp_path: Path) -> None:
    """In XDG_DATA_HOME, where the next one finds it."""
    with _without_flags(tmp_path) as host:
        assert _push(host, b"content")[0] == 201
    assert (tmp_path / "cacheproxy").is_dir()

    with _without_flags(tmp_path) as host:
        path = f"/v2/ci/app/blobs/{_digest(b'content')}"
        assert _send(host, "GET", path, b"") == (200, b"content")


@contextmanager
def _half_sent(host: str, operators: str, content: bytes) -> Iterator[socket.socket]:
    """A push to `host` of which the last byte is missing, as `operators` say."""
    host, _, port = host.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        head = f"POST /v2/ci/app/blobs/uploads/?digest={_digest(content)} HTTP/1.1\r\n"
        wire.sendall(f"{head}Host: x\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        wire.sendall(content[:-1])
        running = b'in_progress{endpoint="end-4b"} 1.0'
        _wait(lambda: running in _send(operators, "GET", "/metrics", b"")[1])
        yield wire


def _wait(look: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_running_transfer_ends_before_the_server_does(tmp_path: Path) -> None:
    """SIGTERM: /readyz turns to 503, what is running is finished, the exit status is 0."""
    with (
        Server.running(tmp_path) as server,
        _half_sent(server.host, server.host, b"content") as wire,
    ):
        server.daemon.signal(signal.SIGTERM)
        server.daemon.wait_for_log("draining")
        assert _send(server.host, "GET", "/readyz", b"") == (503, b"draining\n")
        wire.sendall(b"t")

        assert wire.recv(20).startswith(b"HTTP/1.1 201")
        assert server.daemon.wait_for_end() == 0


def test_a_client_that_reads_slowly_gets_all_before_the_server_ends(tmp_path: Path) -> None:
    """SIGTERM: a download of more than the sockets hold is finished, be it read only then."""
    content = os.urandom(32 << 20)
    with (
        Server.running(tmp_path) as server,
        closing(http.client.HTTPConnection(server.host, timeout=30)) as connection,
    ):
        assert _push(server.host, content)[0] == 201
        connection.request("GET", f"/v2/ci/app/blobs/{_digest(content)}")
        with connection.getresponse() as answer:
            server.daemon.signal(signal.SIGTERM)
            server.daemon.wait_for_log("draining")
            assert _send(server.host, "GET", "/readyz", b"") == (503, b"draining\n")

            assert _digest(answer.read()) == _digest(content)
        assert server.daemon.wait_for_end() == 0


def test_an_answer_while_draining_is_the_last_on_its_connection(tmp_path: Path) -> None:
    """Clients and proxies leave by themselves, before the server does."""
    with (
        Server.running(tmp_path) as server,
        _half_sent(server.host, server.host, b"content") as wire,
    ):
        server.daemon.signal(signal.SIGTERM)
        server.daemon.wait_for_log("draining")
        with closing(http.client.HTTPConnection(server.host, timeout=30)) as connection:
            connection.request("GET", "/v2/")
            with connection.getresponse() as answer:
                assert (answer.status, answer.headers["Connection"]) == (200, "close")
        wire.sendall(b"t")
        assert server.daemon.wait_for_end() == 0


def test_a_request_that_meets_the_end_is_answered(tmp_path: Path) -> None:
    """A proxy may use a connection that it has kept while the server, idle, is told to end."""
    with Server.running(tmp_path) as server:
        with closing(http.client.HTTPConnection(server.host, timeout=30)) as connection:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            server.daemon.signal(signal.SIGTERM)
            server.daemon.wait_for_log("draining")
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == 200
        assert server.daemon.wait_for_end() == 0


def test_a_transfer_that_does_not_end_is_cut(tmp_path: Path) -> None:
    """The time for draining is bounded."""
    flags = ("--server-drain-timeout=0.1",)
    with (
        Server.running(tmp_path, *flags) as server,
        _half_sent(server.host, server.host, b"content"),
    ):
        server.daemon.signal(signal.SIGTERM)

        assert server.daemon.wait_for_end() == 0
    assert list((server.data / ".spool").iterdir()) == []


def test_workers_serve_one_folder_and_count_as_one(tmp_path: Path) -> None:
    """What one stores all have, and a scrape of any shows the sum."""
    with Server.running(tmp_path, "--workers=2") as server:
        for number in range(30):
            assert _push(server.host, f"{number}".encode())[0] == 201
        for number in range(30):
            server.get(f"/v2/ci/app/blobs/{_digest(f'{number}'.encode())}")

        line = 'cacheproxy_http_requests_total{code="200",endpoint="end-2",method="GET"} 30.0'
        _wait(lambda: line in server.get("/metrics"))  # the others tell once a second


def test_operators_are_answered_apart_until_the_end(tmp_path: Path) -> None:
    """By every worker for all of them, also while one drains, and then by nobody."""
    flags = ("--workers=2", "--metrics-listen=127.0.0.1:0")
    with Server.running(tmp_path, *flags) as server:
        operators = server.daemon.wait_for_log(r'"metrics":"([^"]+)"')[1]
        for number in range(30):
            assert _push(server.host, f"{number}".encode())[0] == 201
        pushed = b'cacheproxy_http_requests_total{code="201",endpoint="end-4b",method="POST"} 30.0'
        _wait(lambda: pushed in _send(operators, "GET", "/metrics", b"")[1])
        for _ in range(10):
            status, told = _send(operators, "GET", "/metrics", b"")
            assert (status, pushed in told) == (200, True)
        assert _send(server.host, "GET", "/metrics", b"")[0] == 404

        with _half_sent(server.host, operators, b"content") as wire:
            server.daemon.signal(signal.SIGTERM)
            server.daemon.wait_for_log('"event":"ended"')  # the worker that has nothing to do
            assert _send(operators, "GET", "/readyz", b"") == (503, b"draining\n")
            assert pushed in _send(operators, "GET", "/metrics", b"")[1]
            wire.sendall(b"t")
            assert wire.recv(20).startswith(b"HTTP/1.1 201")
        assert server.daemon.wait_for_end() == 0


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """The others serve on, and soon there are as many as before."""
    with Server.running(tmp_path, "--workers=2") as server:
        _wait(lambda: server.daemon.log.count('"event":"serving"') == 2)
        victim = _children(server.daemon.pid)[0]
        os.kill(victim, signal.SIGKILL)

        _wait(lambda: server.daemon.log.count('"event":"serving"') == 3)
        assert len(_children(server.daemon.pid)) == 2
        server.daemon.signal(signal.SIGTERM)
        assert server.daemon.wait_for_end() == 0


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """No process stays behind that nobody can find, and the folder is free again."""
    with Server.running(tmp_path, "--workers=2") as server:
        _wait(lambda: len(_children(server.daemon.pid)) == 2)
        workers = _children(server.daemon.pid)
        server.daemon.signal(signal.SIGKILL)

        _wait(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    with Server.running(tmp_path):
        pass


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, workers: int) -> None:
    """kill -9 at random moments of many pushes: all of 201 is there, nothing partial is."""
    chance = random.Random(workers)
    ledger = Ledger()
    for moment in _MOMENTS:
        with Server.running(tmp_path, f"--workers={workers}") as server:
            kill(server, ledger, _push_all_kinds, chance, moment)
    with Server.running(tmp_path) as server:
        ledger.check(server.host)
        assert list((server.data / ".spool").iterdir()) == []
    assert ledger.kinds == _KINDS
    for path in (server.data / "default" / "blobs").rglob("*"):
        assert path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _push_all_kinds(pusher: Pusher, chance: random.Random, tag: str) -> None:
    small = chance.randbytes(chance.choice([10, 10_000, 300_000]))
    pusher.at_once(small)
    pusher.blob(chance.randbytes(3 << 20), "large")
    pusher.manifest(small, tag)
    pusher.manifest(small, f"{tag}-gone")
    pusher.no_tag(f"{tag}-gone")
    pusher.chunked(chance.randbytes(600_000))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 8 MiB."""
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "no length"])
def test_a_full_disk_refuses_what_does_not_fit_and_nothing_else(
    small_disk: Path, chunked: bool
) -> None:
    """507 in the form of the spec, no byte of it left, and the next push succeeds."""
    with Server.running(small_disk) as server:
        status, body = _push(server.host, os.urandom(9 << 20), chunked=chunked)

        assert (status, json.loads(body)["errors"][0]["code"]) == (507, "UNAVAILABLE")
        assert list((server.data / ".spool").iterdir()) == []
        assert _push(server.host, os.urandom(1 << 20))[0] == 201
