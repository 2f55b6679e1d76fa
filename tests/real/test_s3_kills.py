"""kill -9 of a server on S3: what it has acknowledged stays, and what it has left is removed."""

from __future__ import annotations

import http.client
import os
import random
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tests.api.wire import digest
from tests.kills import Ledger, Pusher, kill
from tests.real.seaweed import SeaweedFS
from tests.server import QUICK, Server

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
    ledger = Ledger()
    for moment in _MOMENTS:
        with Server.on_s3(folder, seaweed, prefix, _PARTS, command=QUICK) as server:
            ledger.check(server.host)
            ledger.forget()
            kill(server, ledger, _push, chance, moment)
    with Server.on_s3(folder, seaweed, prefix, _PARTS, command=QUICK) as server:
        ledger.check(server.host)
    return ledger.kinds


def _push(pusher: Pusher, chance: random.Random, tag: str) -> None:
    small = chance.randbytes(chance.choice([10, 10_000, 300_000]))
    pusher.blob(small, "small")
    pusher.chunked(chance.randbytes(600_000))
    pusher.manifest(small, tag)
    pusher.blob(chance.randbytes(_LARGE), "large")


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
        path = f"/v2/ci/app/blobs/uploads/?digest={digest(content)}"
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
