"""Pushes of all kinds to a server that is killed, and what it has acknowledged of them."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing

from tests.api.wire import MANIFEST, UPLOADS, digest
from tests.server import Server


class Ledger:
    """What was pushed by content, and what the server said to it."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        """Of what kinds all that was ever acknowledged was."""
        self._begun: set[str] = set()
        """Paths by digest."""
        self._acknowledged: set[str] = set()
        """Those of them that are there."""
        self._tags: dict[str, set[str]] = {}
        """Paths of tags, and where they may lead: that which was acknowledged last, and what was
        begun since; nowhere is an empty text."""

    def begin(self, path: str) -> None:
        self._begun.add(path)

    def acknowledge(self, path: str, kind: str) -> None:
        self._acknowledged.add(path)
        self.kinds.add(kind)

    @property
    def acknowledged(self) -> int:
        """How much was acknowledged, tags aside."""
        return len(self._acknowledged)

    def begin_tag(self, path: str, target: str) -> None:
        self._tags[path] = self._tags.get(path, {""}) | {target}

    def acknowledge_tag(self, path: str, target: str) -> None:
        self._tags[path] = {target}
        self.kinds.add("tag" if target else "no tag")

    def check(self, host: str) -> None:
        """Look at everything on a server."""
        with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            for path in self._begun:
                found = _found(connection, path)
                assert found in path, path
                assert found or path not in self._acknowledged, path
            for path, targets in self._tags.items():
                assert _found(connection, path) in targets, path

    def forget(self) -> None:
        """Forget what was pushed by digest, as it was checked."""
        self._begun.clear()
        self._acknowledged.clear()


class Pusher:
    """Pushes to a server on one connection, and notes in a ledger what comes of it."""

    def __init__(self, connection: http.client.HTTPConnection, ledger: Ledger) -> None:
        self._connection = connection
        self._ledger = ledger

    def at_once(self, content: bytes) -> None:
        """A blob by one POST."""
        path = self._blob(content)
        assert self._send("POST", f"{UPLOADS}?digest={digest(content)}", content)[0] == 201
        self._ledger.acknowledge(path, "at once")

    def blob(self, content: bytes, kind: str) -> None:
        """A blob by POST and PUT."""
        path = self._blob(content)
        session = self._begin()
        assert self._send("PUT", f"{session}?digest={digest(content)}", content)[0] == 201
        self._ledger.acknowledge(path, kind)

    def chunked(self, content: bytes) -> None:
        """A blob by POST, two PATCHes and PUT."""
        path = self._blob(content)
        session = self._begin()
        half = len(content) // 2
        for chunk in (content[:half], content[half:]):
            status, session = self._send("PATCH", session, chunk)
            assert status == 202
        assert self._send("PUT", f"{session}?digest={digest(content)}", b"")[0] == 201
        self._ledger.acknowledge(path, "chunked")

    def manifest(self, config: bytes, tag: str) -> None:
        """A manifest by digest, to which a tag leads then."""
        descriptor = {"mediaType": "x", "digest": digest(config), "size": len(config)}
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": []}
        manifest = json.dumps(body).encode()
        path = _path(digest(manifest))
        self._ledger.begin(path)
        assert self._send("PUT", path, manifest)[0] == 201
        self._ledger.acknowledge(path, "manifest")
        self._ledger.begin_tag(_path(tag), digest(manifest))
        assert self._send("PUT", _path(tag), manifest)[0] == 201
        self._ledger.acknowledge_tag(_path(tag), digest(manifest))

    def no_tag(self, tag: str) -> None:
        """The end of a tag."""
        self._ledger.begin_tag(_path(tag), "")
        assert self._send("DELETE", _path(tag), b"")[0] == 202
        self._ledger.acknowledge_tag(_path(tag), "")

    def _blob(self, content: bytes) -> str:
        path = f"/v2/ci/app/blobs/{digest(content)}"
        self._ledger.begin(path)
        return path

    def _begin(self) -> str:
        status, session = self._send("POST", UPLOADS, b"")
        assert status == 202
        return session

    def _send(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        """The status of the answer, and where it sends."""
        self._connection.request(method, path, body, {"Content-Type": MANIFEST})
        with self._connection.getresponse() as answer:
            answer.read()
            return answer.status, answer.headers.get("Location", "")


Push = Callable[[Pusher, random.Random, str], None]
"""Pushes something of each kind, and tags by a name that nobody else uses."""


def kill(server: Server, ledger: Ledger, push: Push, chance: random.Random, more: int) -> None:
    """Kill a server at a random moment after it acknowledged so much more, pushed by three."""
    enough = ledger.acknowledged + more
    pushers = [
        threading.Thread(target=_push_until_dead, args=(server.host, seed, ledger, push))
        for seed in (chance.random(), chance.random(), chance.random())
    ]
    for thread in pushers:
        thread.start()
    server.daemon.wait_for(lambda: ledger.acknowledged >= enough or None)
    time.sleep(chance.uniform(0, 0.3))  # the moment is what is random
    server.daemon.kill_all()
    for thread in pushers:
        thread.join()


def _push_until_dead(host: str, seed: float, ledger: Ledger, push: Push) -> None:
    """Push until nobody answers."""
    chance = random.Random(seed)
    try:
        with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            while True:
                push(Pusher(connection, ledger), chance, f"tag-{seed}")
    except (OSError, http.client.HTTPException):
        return


def _found(connection: http.client.HTTPConnection, path: str) -> str:
    """The digest of what is there, or nothing."""
    connection.request("GET", path, headers={"Accept": MANIFEST})
    with connection.getresponse() as answer:
        body = answer.read()
        assert answer.status in (200, 404), path
        return digest(body) if answer.status == 200 else ""


def _path(reference: str) -> str:
    return f"/v2/ci/app/manifests/{reference}"
