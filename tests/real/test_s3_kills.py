"""kill -9 of a server on S3: what it has acknowledged stays, and what it has left is removed."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.real.seaweed import SeaweedFS
from tests.server import QUICK, Server

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PARTS = "--s3-part-bytes=5MiB"
_LARGE = 11 << 20
_SERVERS = 4
_MOMENTS = (0, 1, 3, 6, 10)
"""How much is acknowledged before each kill: with ten, one of three has pushed all four."""
_KINDS = {"small", "large", "chunked", "manifest", "tag"}


def test_what_was_acknowledged_survives_kills(seaweed: SeaweedFS, tmp_path: Path) -> None:
    """Twenty kills at random moments of pushes of all kinds; a few servers at a time, to be quick.
    After each, all that was acknowledged is there and right, and nothing partial is."""
    with ThreadPoolExecutor(_SERVERS) as threads:
        runs = [
            threads.submit(_kill_again_and_again, seaweed, tmp_path / f"{seed}", seed)
            for seed in range(_SERVERS)
        ]
        kinds = set().union(*(run.result() for run in runs))

    assert kinds == _KINDS


def _kill_again_and_again(seaweed: SeaweedFS, folder: Path, seed: int) -> set[str]:
    """What kinds of pushes were acknowledged."""
    chance = random.Random(seed)
    prefix = seaweed.fresh_prefix()
    kinds: set[str] = set()
    ledger = _Ledger()
    for moment in _MOMENTS:
        with Server.on_s3(folder, seaweed, prefix, _PARTS, command=QUICK) as server:
            ledger.check(server.host)
            kinds |= ledger.settle()
            pushers = [
                threading.Thread(target=_push_until_dead, args=(server.host, seed, ledger))
                for seed in (chance.random(), chance.random(), chance.random())
            ]
            for thread in pushers:
                thread.start()
            server.daemon.wait_for(partial(ledger.reached, moment))
            time.sleep(chance.uniform(0, 0.3))  # the moment is what is random
            server.daemon.kill_all()
            for thread in pushers:
                thread.join()
    with Server.on_s3(folder, seaweed, prefix, _PARTS, command=QUICK) as server:
        ledger.check(server.host)
    return kinds | ledger.settle()


class _Ledger:
    """What was pushed by content, and what the server said to it."""

    def __init__(self) -> None:
        self._begun: dict[str, str] = {}
        """Paths by digest, and the digest of what may be there."""
        self._acknowledged: dict[str, str] = {}
        """Paths by digest, and of what kind they are."""
        self._tags: dict[str, tuple[str, set[str]]] = {}
        """Paths of tags, the digest that was acknowledged last, and those begun since."""

    def begin(self, path: str, digest: str) -> None:
        self._begun[path] = digest

    def acknowledge(self, path: str, kind: str) -> None:
        self._acknowledged[path] = kind

    def reached(self, number: int) -> bool | None:
        """Whether so much was acknowledged, tags aside."""
        return len(self._acknowledged) >= number or None

    def begin_tag(self, path: str, digest: str) -> None:
        last, begun = self._tags.get(path, ("", set()))
        self._tags[path] = (last, begun | {digest})

    def acknowledge_tag(self, path: str, digest: str) -> None:
        self._tags[path] = (digest, set())

    def check(self, host: str) -> None:
        """Look at everything on a server."""
        with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            for path, digest in self._begun.items():
                status, body = _send(connection, "GET", path)
                assert status == 200 or (status == 404 and path not in self._acknowledged), path
                assert status == 404 or _digest(body) == digest
            for path, (last, begun) in self._tags.items():
                status, body = _send(connection, "GET", path)
                assert status == 200 or (status == 404 and not last), path
                assert status == 404 or _digest(body) in {last, *begun}

    def settle(self) -> set[str]:
        """The kinds of all that was acknowledged, which is forgotten as it was checked."""
        kinds = set(self._acknowledged.values())
        if any(last for last, _ in self._tags.values()):
            kinds.add("tag")
        self._begun.clear()
        self._acknowledged.clear()
        return kinds


def _push_until_dead(host: str, seed: float, ledger: _Ledger) -> None:
    """Push blobs and manifests until nobody answers."""
    chance = random.Random(seed)
    tag = f"/v2/ci/app/manifests/tag-{seed}"
    try:
        with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            while True:
                small = chance.randbytes(chance.choice([10, 10_000, 300_000]))
                _push(connection, small, ledger, "small")
                _push_chunked(connection, chance.randbytes(600_000), ledger)
                _push_manifest(connection, small, tag, ledger)
                _push(connection, chance.randbytes(_LARGE), ledger, "large")
    except (OSError, http.client.HTTPException):
        return


def _push(
    connection: http.client.HTTPConnection, content: bytes, ledger: _Ledger, kind: str
) -> None:
    digest = _digest(content)
    path = f"/v2/ci/app/blobs/{digest}"
    ledger.begin(path, digest)
    session = _begin(connection)
    assert _send(connection, "PUT", f"{session}?digest={digest}", content)[0] == 201
    ledger.acknowledge(path, kind)


def _push_chunked(connection: http.client.HTTPConnection, content: bytes, ledger: _Ledger) -> None:
    digest = _digest(content)
    path = f"/v2/ci/app/blobs/{digest}"
    ledger.begin(path, digest)
    session = _begin(connection)
    half = len(content) // 2
    for chunk in (content[:half], content[half:]):
        connection.request("PATCH", session, chunk)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 202
        session = answer.headers["Location"]
    assert _send(connection, "PUT", f"{session}?digest={digest}", b"")[0] == 201
    ledger.acknowledge(path, "chunked")


def _push_manifest(
    connection: http.client.HTTPConnection, config: bytes, tag: str, ledger: _Ledger
) -> None:
    descriptor = {"mediaType": "x", "digest": _digest(config), "size": len(config)}
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": _MANIFEST, "config": descriptor, "layers": []}
    ).encode()
    digest = _digest(manifest)
    path = f"/v2/ci/app/manifests/{digest}"
    ledger.begin(path, digest)
    assert _send(connection, "PUT", path, manifest)[0] == 201
    ledger.acknowledge(path, "manifest")
    ledger.begin_tag(tag, digest)
    assert _send(connection, "PUT", tag, manifest)[0] == 201
    ledger.acknowledge_tag(tag, digest)


def _begin(connection: http.client.HTTPConnection) -> str:
    connection.request("POST", "/v2/ci/app/blobs/uploads/", b"")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 202
    return answer.headers["Location"]


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, body, {"Content-Type": _MANIFEST, "Accept": _MANIFEST})
    with connection.getresponse() as answer:
        return answer.status, answer.read()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_what_a_killed_server_has_left_is_removed(
    seaweed: SeaweedFS, s3_prefix: str, tmp_path: Path
) -> None:
    """Its multipart uploads, once they are too old, and its spools, once it is surely dead."""
    with Server.on_s3(tmp_path, seaweed, s3_prefix, _PARTS, command=QUICK) as server:
        content = os.urandom(_LARGE)

        def all_but_the_last_byte() -> Iterator[bytes]:
            yield content[:-1]
            server.daemon.wait_for(lambda: _uploads(seaweed, s3_prefix) or None)
            server.daemon.kill_all()
            yield content[-1:]

        headers = {"Content-Length": str(_LARGE)}
        path = f"/v2/ci/app/blobs/uploads/?digest={_digest(content)}"
        with closing(http.client.HTTPConnection(server.host, timeout=60)) as connection:
            try:
                connection.request("POST", path, all_but_the_last_byte(), headers)
                connection.getresponse()
            except (OSError, http.client.HTTPException):
                pass
    spools = list((server.data / "spool").iterdir())
    assert len(spools) == 1
    for spool in spools:
        os.utime(spool, (0, 0))
    assert _uploads(seaweed, s3_prefix)

    flags = ("--limits-upload-seconds=0.1",)
    with Server.on_s3(tmp_path, seaweed, s3_prefix, *flags, command=QUICK) as server:
        server.daemon.wait_for_log('"spools"')

    assert list((server.data / "spool").iterdir()) == []
    assert not _uploads(seaweed, s3_prefix)


def _uploads(seaweed: SeaweedFS, prefix: str) -> bool:
    """Whether a multipart upload is running below the prefix."""
    query = {"uploads": "", "prefix": f"{prefix}/"}
    url = seaweed.signer.presign("GET", f"/{seaweed.bucket}", query)
    with urllib.request.urlopen(url, timeout=30) as answer:
        return b"<UploadId>" in answer.read()
