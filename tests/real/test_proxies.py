"""nginx and HAProxy between clients and a server, set up as README.md says."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import random
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPSConnection
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.access.doors import PASSWORD, htpasswd
from tests.real.base_image import BaseImage, Image
from tests.real.build import Build
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.real.origin import Exchange, origin
from tests.real.port import Port
from tests.real.proxy import HAPROXY, NGINX, Proxy, Software
from tests.s3.tls import Certificate, certify
from tests.server import Server

_IDLE: Final = 2
"""Seconds of a pause: more than a minute of the proxies, which takes a second here."""

_MIB: Final = 1 << 20
_MORE_THAN_BUFFERS: Final = 16 * _MIB
_LARGE: Final = random.Random(1).randbytes(_MIB) * 64
_DIGEST: Final = f"sha256:{hashlib.sha256(_LARGE).hexdigest()}"
_UPLOADS: Final = "/v2/ci/app/blobs/uploads/"

_RULES: Final = '[{users: ["*"], actions: [pull, push], repositories: ["*"]}]'
_LOGIN: Final = {
    "Authorization": f"Basic {base64.b64encode(f'runner:{PASSWORD}'.encode()).decode()}"
}

_DOCKERFILE: Final = """\
FROM {base} AS tools
RUN head -c 3000000 /dev/urandom > /tools
FROM {base}
COPY --from=tools /tools /tools
RUN md5sum /tools > /result
"""

_ON_TOP: Final = """\
FROM {base}
COPY --link Dockerfile /
"""

_PATHS: Final = (
    "/v2/ci/app/blobs/sha256:ab",
    "/v2/ci/app/blobs/sha256%3Aab",
    "/v2/ci/app/manifests/sha256%3aab?ns=docker.io",
    "/v2/ci/app/blobs/uploads/a-b_c.d~e?_state=a%2Fb%3D&digest=sha256%3Aab",
    "/v2/ci//app/./tags/../tags/list?n=1&last=a%20b+c",
    "/v2/ci%2Fapp/tags/list",
)

Start = Callable[..., Proxy]


@pytest.fixture(params=[NGINX, HAPROXY], ids=str, scope="module")
def software(request: pytest.FixtureRequest) -> Software:
    return request.param  # type: ignore[no-any-return]  # pytest does not know


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certify(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def start(software: Software, certificate: Certificate, tmp_path: Path) -> Iterator[Start]:
    """Starts a proxy before these servers, with changes in README's lines."""
    numbers = count()
    with ExitStack() as stack:

        def start(*hosts: str, changes: dict[str, str] | None = None) -> Proxy:
            folder = tmp_path / f"proxy{next(numbers)}"
            running = Proxy.running(software, folder, hosts, certificate, changes)
            return stack.enter_context(running)

        yield start


@pytest.fixture(scope="module")
def behind(
    software: Software, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, Server]]:
    """A proxy, and a server behind it that asks for credentials."""
    folder = tmp_path_factory.mktemp("behind")
    (folder / "users").write_text(htpasswd("runner"))
    auth = (f"--auth-htpasswd-file={folder}/users", f"--auth-rules={_RULES}")
    with (
        closing(Port()) as port,
        Proxy.running(
            software, folder / "proxy", [f"127.0.0.1:{port.number}"], certificate
        ) as proxy,
        Server.running(
            folder, *auth, f"--server-public-url=https://{proxy.host}", port=port.number
        ) as server,
    ):
        yield proxy, server


@pytest.fixture(scope="module")
def proxy(behind: tuple[Proxy, Server]) -> Proxy:
    return behind[0]


@pytest.fixture(scope="module")
def builder(proxy: Proxy) -> Iterator[BuildKit]:
    """A buildkitd that trusts the proxy, and calls no other registry by TLS."""
    trusting = f'[registry."{proxy.host}"]\nhttp = false\nca = ["{proxy.authority}"]\n'
    with BuildKit.running(trusting) as running:
        running.home.login(proxy.host, "runner", PASSWORD)
        yield running


def _build(buildkit: BuildKit, proxy: Proxy, context: Path, *options: str) -> Build:
    trust = f"--registry-auth-tlscontext=host={proxy.host},ca={proxy.authority}"
    return buildkit.build(context, trust, *options)


def _ref(proxy: Proxy) -> str:
    return f"type=registry,ref={proxy.host}/ci/app:cache"


def test_buildkit_exports_and_imports_a_cache(
    buildkit: BuildKit, proxy: Proxy, layout: BaseImage, crane: Crane, tmp_path: Path
) -> None:
    """By TLS that ends at the proxy, with credentials, and a token from where it is told to ask."""
    crane.home.login(proxy.host, "runner", PASSWORD)
    base = layout.push(proxy.host, crane)
    (tmp_path / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
    _build(buildkit, proxy, tmp_path, f"--export-cache={_ref(proxy)},mode=max")
    buildkit.prune()

    build = _build(buildkit, proxy, tmp_path, f"--import-cache={_ref(proxy)}")

    assert build.executed == []
    assert len(build.cached) == 3


@pytest.fixture
def slow_base(tmp_path: Path) -> Iterator[str]:
    """An image elsewhere that the server does not know, whose layer comes after a pause."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(str(tmp_path)))
    image = Image(tmp_path / "base", "base", target.getvalue(), "/bin")
    [described] = json.loads((image.folder / "index.json").read_text())["manifests"]
    [layer] = json.loads(image.blob(described["digest"]))["layers"]

    def serve(exchange: Exchange) -> None:
        _, kind, target = exchange.path.partition("?")[0].rsplit("/", 2)
        digest = target if ":" in target else described["digest"]
        if digest == layer["digest"]:
            time.sleep(_IDLE)
        content_type = described["mediaType"] if kind == "manifests" else "text/plain"
        exchange.answer(200, image.blob(digest), content_type)

    with origin(serve) as host:
        yield f"{host}/base:latest"


def test_buildkit_begins_a_put_long_before_it_has_the_bytes(
    buildkit: BuildKit, behind: tuple[Proxy, Server], slow_base: str, tmp_path: Path
) -> None:
    """Where a build did not need a layer, it is fetched when its PUT has begun."""
    proxy, server = behind
    before = len(server.daemon.log)
    (tmp_path / "Dockerfile").write_text(_ON_TOP.format(base=slow_base))

    _build(buildkit, proxy, tmp_path, f"--export-cache={_ref(proxy)},mode=max")

    lines = [json.loads(line) for line in server.daemon.log[before:].splitlines()]
    puts = [line["status"] for line in lines if line.get("endpoint") == "end-6"]
    assert set(puts) == {201}


def _acknowledge(exchange: Exchange) -> None:
    """Take a body and answer; the path says where in that to pause."""
    if exchange.path == "/slow-to-take":
        time.sleep(_IDLE)
    exchange.body()
    if exchange.path == "/slow-to-begin":
        time.sleep(_IDLE)
    exchange.begin(200, _MORE_THAN_BUFFERS)
    half = bytes(_MORE_THAN_BUFFERS // 2)
    exchange.wfile.write(half)
    if exchange.path == "/slow-to-end":
        exchange.wfile.flush()
        time.sleep(_IDLE)
    exchange.wfile.write(half)


def _in_what_is_sent(connection: HTTPSConnection) -> bool:
    connection.putrequest("PUT", "/")
    connection.putheader("Content-Length", "4")
    connection.endheaders(b"la")
    time.sleep(_IDLE)
    connection.send(b"te")
    return _takes_all(connection)


def _before_what_is_sent(connection: HTTPSConnection) -> bool:
    connection.putrequest("PUT", "/")
    connection.putheader("Content-Length", "4")
    connection.endheaders()
    time.sleep(_IDLE)
    connection.send(b"late")
    return _takes_all(connection)


def _in_what_is_taken(connection: HTTPSConnection) -> bool:
    connection.request("GET", "/")
    with connection.getresponse() as answer:
        time.sleep(_IDLE)
        return len(answer.read()) == _MORE_THAN_BUFFERS


def _between_requests(connection: HTTPSConnection) -> bool:
    connection.request("GET", "/")
    taken = _takes_all(connection)
    connection.auto_open = 0  # it is this connection that has to be there still
    time.sleep(_IDLE)
    connection.request("GET", "/")
    return taken and _takes_all(connection)


def _of_a_server_that_takes(connection: HTTPSConnection) -> bool:
    connection.request("PUT", "/slow-to-take", body=bytes(_MORE_THAN_BUFFERS))
    return _takes_all(connection)


def _of_a_server_that_begins(connection: HTTPSConnection) -> bool:
    connection.request("PUT", "/slow-to-begin", body=b"x")
    return _takes_all(connection)


def _of_a_server_that_answers(connection: HTTPSConnection) -> bool:
    connection.request("GET", "/slow-to-end")
    return _takes_all(connection)


def _takes_all(connection: HTTPSConnection) -> bool:
    with connection.getresponse() as answer:
        return answer.status == 200 and len(answer.read()) == _MORE_THAN_BUFFERS


_PAUSES: Final = (
    _before_what_is_sent,
    _in_what_is_sent,
    _in_what_is_taken,
    _between_requests,
    _of_a_server_that_takes,
    _of_a_server_that_begins,
    _of_a_server_that_answers,
)


def _broken(proxy: Proxy, pauses: Sequence[Callable[[HTTPSConnection], bool]]) -> set[str]:
    """The names of pauses that the proxy does not bear. All are made at once."""

    def bears(pause: Callable[[HTTPSConnection], bool]) -> bool:
        with closing(proxy.connect()) as connection:
            try:
                return pause(connection)
            except (OSError, http.client.HTTPException):
                return False

    with ThreadPoolExecutor(len(pauses)) as pool:
        found = zip(pauses, pool.map(bears, pauses), strict=True)
        return {pause.__name__ for pause, borne in found if not borne}


@pytest.fixture
def acknowledging() -> Iterator[str]:
    with origin(_acknowledge) as host:
        yield host


def test_clients_and_the_server_may_pause(start: Start, acknowledging: str) -> None:
    """For longer than the minute that proxies have by default."""
    assert _broken(start(acknowledging), _PAUSES) == set()


_LIMITS: Final = {
    "nginx": {
        "client_body_timeout 30m": _in_what_is_sent,
        "  send_timeout 30m": _in_what_is_taken,
        "keepalive_timeout 5m": _between_requests,
        "proxy_send_timeout 30m": _of_a_server_that_takes,
        "proxy_read_timeout 30m": _of_a_server_that_begins,
    },
    "haproxy": {
        "timeout client 30m": _in_what_is_taken,
        "timeout http-keep-alive 5m": _between_requests,
        "timeout server 30m": _in_what_is_sent,
    },
}


def test_every_time_limit_is_needed(start: Start, software: Software, acknowledging: str) -> None:
    """With a minute instead, one kind of pause breaks the connection: the test would see it."""
    limits = _LIMITS[software.name]
    proxies = [start(acknowledging, changes={line: _minute(line)}) for line in limits]

    with ThreadPoolExecutor(len(limits)) as pool:
        broken = list(pool.map(_broken, proxies, ([pause] for pause in limits.values())))

    assert broken == [{pause.__name__} for pause in limits.values()]


def _minute(line: str) -> str:
    return f"{line.rpartition(' ')[0]} 1m"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", {"Content-Length": str(len(_LARGE))}, 201),
        ("PUT", {"Content-Length": str(len(_LARGE)), "Expect": "100-continue"}, 201),
        ("PATCH", {"Transfer-Encoding": "chunked"}, 202),
    ],
    ids=["put", "expect", "chunked"],
)
def test_a_large_blob_is_passed_on_while_it_is_pushed(
    behind: tuple[Proxy, Server], method: str, headers: dict[str, str], status: int
) -> None:
    """The server has what was sent before the rest is, and the proxy's disk has none of it."""
    proxy, server = behind
    before, half = proxy.written, len(_LARGE) // 2
    with closing(proxy.connect()) as connection:
        connection.request("POST", _UPLOADS, headers=_LOGIN)
        with connection.getresponse() as begun:
            path = begun.headers["Location"]
        connection.putrequest(method, f"{path}?digest={_DIGEST}")
        for name, value in {**_LOGIN, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        if "Expect" in headers:
            assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        chunked = "Transfer-Encoding" in headers
        connection.send(_framed(_LARGE[:half], chunked))
        server.daemon.wait_for(lambda: _spooled(server) > half / 2 or None, seconds=30)
        connection.send(_framed(_LARGE[half:], chunked) + (b"0\r\n\r\n" if chunked else b""))
        with connection.getresponse() as answer:
            assert answer.status == status, answer.read()
    assert proxy.written - before < _MIB


def _framed(content: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content) if chunked else content


def _spooled(server: Server) -> int:
    """How many bytes the server has of what is being sent to it."""
    return sum(path.stat().st_size for path in (server.data / ".spool").iterdir())


@pytest.fixture(scope="module")
def blob(proxy: Proxy) -> str:
    """The path of a large blob that is in the server."""
    with closing(proxy.connect()) as connection:
        connection.request("POST", f"{_UPLOADS}?digest={_DIGEST}", _LARGE, _LOGIN)
        with connection.getresponse() as answer:
            assert answer.status == 201, answer.read()
    return f"/v2/ci/app/blobs/{_DIGEST}"


def test_a_large_blob_is_passed_on_while_it_is_pulled(proxy: Proxy, blob: str) -> None:
    """A client that takes it slowly does not fill the proxy's disk."""
    before = proxy.written
    with closing(proxy.connect()) as slow, closing(proxy.connect()) as fast:
        slow.request("GET", blob, headers=_LOGIN)
        with slow.getresponse() as begun:
            fast.request("GET", blob, headers=_LOGIN)
            with fast.getresponse() as answer:
                assert answer.read() == _LARGE
            assert proxy.written - before < _MIB
            assert begun.read() == _LARGE


@pytest.mark.parametrize(
    ("method", "headers", "status", "length"),
    [
        ("GET", {}, 200, len(_LARGE)),
        ("HEAD", {}, 200, len(_LARGE)),
        ("GET", {"Range": "bytes=5-14"}, 206, 10),
    ],
    ids=["get", "head", "range"],
)
def test_an_answer_is_what_the_server_said(
    proxy: Proxy, blob: str, method: str, headers: dict[str, str], status: int, length: int
) -> None:
    """Lengths and ranges are of the bytes that are stored, though the client takes gzip."""
    with closing(proxy.connect()) as connection:
        connection.request(method, blob, headers={**_LOGIN, **headers, "Accept-Encoding": "gzip"})
        with connection.getresponse() as answer:
            assert answer.status == status
            assert answer.headers["Content-Encoding"] is None
            assert answer.headers["Content-Length"] == str(length)
            assert answer.headers["Docker-Content-Digest"] == _DIGEST
            if status == 206:
                assert answer.headers["Content-Range"] == f"bytes 5-14/{len(_LARGE)}"
                assert answer.read() == _LARGE[5:15]


def test_requests_come_as_they_were_sent(start: Start) -> None:
    """Escapes, slashes and dots stay where they are, and the host is the client's."""
    seen: list[tuple[str, str]] = []

    def note(exchange: Exchange) -> None:
        seen.append((exchange.requestline, exchange.headers["Host"]))
        exchange.answer(200)

    with origin(note) as host:
        proxy = start(host)
        with closing(proxy.connect()) as connection:
            for path in _PATHS:
                connection.request("GET", path)
                connection.getresponse().close()

    assert seen == [(f"GET {path} HTTP/1.1", proxy.host) for path in _PATHS]


def test_a_client_does_not_choose_the_address_that_is_logged(start: Start, tmp_path: Path) -> None:
    """The proxy is believed where a request comes from; what the client says of that is not."""
    forged: tuple[dict[str, str], ...] = (
        {},
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Forwarded-For": "203.0.113.7, 127.0.0.1"},
    )
    with Server.running(tmp_path, "--clients-trusted-proxies=['127.0.0.1']") as server:
        with closing(start(server.host).connect(source="127.0.0.2")) as connection:
            for headers in forged:
                connection.request("GET", "/v2/", headers=headers)
                connection.getresponse().close()

        def logged() -> list[str] | None:
            lines = [json.loads(line) for line in server.daemon.log.splitlines()]
            found = [line["address"] for line in lines if line["event"] == "request"]
            return found if len(found) == len(forged) else None

        assert server.daemon.wait_for(logged) == ["127.0.0.2"] * len(forged)


def test_a_long_token_is_passed_on(start: Start) -> None:
    """As long as the server takes them, nearly."""
    token = "x" * 30_000

    def look(exchange: Exchange) -> None:
        exchange.answer(200 if exchange.headers["Authorization"] == token else 401)

    with origin(look) as host, closing(start(host).connect()) as connection:
        connection.request("GET", "/v2/", headers={"Authorization": token})
        with connection.getresponse() as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("software", "size"),
    [(NGINX, _MIB), (HAPROXY, _MIB), (HAPROXY, 100)],
    ids=["nginx", "haproxy", "haproxy-small"],
    indirect=["software"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", f"{_UPLOADS}session"), ("PATCH", f"{_UPLOADS}session"), ("POST", _UPLOADS)],
)
def test_a_blob_that_was_passed_on_is_not_repeated(
    start: Start, size: int, method: str, path: str
) -> None:
    """A replica has taken it and breaks off: the client is told, and no other one is asked."""
    seen: list[bytes] = []

    def break_off(exchange: Exchange) -> None:
        seen.append(exchange.body())
        exchange.close_connection = True

    with (
        origin(break_off) as one,
        origin(break_off) as other,
        closing(start(one, other).connect()) as connection,
    ):
        assert _status(connection, method, f"{path}?digest={_DIGEST}", bytes(size)) == 502
    assert seen == [bytes(size)]


@pytest.mark.parametrize("software", [NGINX], ids=str, indirect=True)
@pytest.mark.parametrize(("method", "path"), [("PUT", "/v2/ci/manifests/tag"), ("POST", _UPLOADS)])
def test_what_does_no_harm_is_repeated(start: Start, method: str, path: str) -> None:
    """A replica has taken a manifest, or the begin of an upload, and breaks off."""
    with (
        origin(_break_off) as broken,
        origin(_take) as whole,
        closing(start(broken, whole).connect()) as connection,
    ):
        body = bytes(_MIB) if method == "PUT" else b""
        assert [_status(connection, method, path, body) for _ in range(4)] == [200] * 4


def test_a_replica_that_does_not_listen_costs_no_request(start: Start) -> None:
    """The next one is asked."""
    with (
        closing(Port()) as port,
        origin(_take) as host,
        closing(start(f"127.0.0.1:{port.number}", host).connect()) as connection,
    ):
        path = f"{_UPLOADS}session"
        assert [_status(connection, "PUT", path, bytes(_MIB)) for _ in range(4)] == [200] * 4


def _status(connection: HTTPSConnection, method: str, path: str, body: bytes) -> int:
    connection.request(method, path, body)
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


def _break_off(exchange: Exchange) -> None:
    exchange.body()
    exchange.close_connection = True


def _take(exchange: Exchange) -> None:
    exchange.body()
    exchange.answer(200)
