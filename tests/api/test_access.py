"""Access: who is asked, for what, and what a refusal leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.access.control import OpenAccess
from cacheproxy.access.identity import NOBODY, Identity
from cacheproxy.access.policy import Action
from cacheproxy.access.scope import Grant
from cacheproxy.access.tokens import Token
from cacheproxy.errors import Denied, RegistryError, Unauthorized
from cacheproxy.oci.reference import Repository
from tests.api.wire import BLOB, METHODS, UPLOADS, digest, push_blob
from tests.server import serving

_CREDENTIALS = {"Authorization": "Bearer token"}


class Refusing(OpenAccess):
    """Access that is refused to all but what is `allowed`; it notes what it was asked."""

    def __init__(
        self, error: RegistryError, allowed: frozenset[tuple[Action, str]] = frozenset()
    ) -> None:
        self.sent: list[str | None] = []
        self.asked: list[tuple[Action, str | None]] = []
        self._error = error
        self._allowed = allowed

    async def identify(self, credentials: str | None) -> Identity:
        self.sent.append(credentials)
        return NOBODY

    def authorize(self, identity: Identity, action: Action, repository: Repository | None) -> None:
        self.asked.append((action, repository))
        if (action, str(repository)) not in self._allowed:
            raise self._error

    def token(self, identity: Identity, wanted: frozenset[Grant]) -> Token:
        raise self._error


@pytest.mark.parametrize(("error", "status"), [(Denied(), 403), (Unauthorized(), 401)])
async def test_every_endpoint_asks_whether_it_may(
    tmp_path: Path, error: RegistryError, status: int
) -> None:
    """Nothing is answered, not even with 404, before access is decided."""
    async with serving(tmp_path / "data", Refusing(error)) as client:
        for path, methods in METHODS.items():
            for method in methods:
                form = {"grant_type": "password", "username": "x", "password": "x"}
                data = form if path == "/token" and method == "POST" else None
                async with client.request(method, path, data=data) as answer:
                    assert (method, path, answer.status) == (method, path, status)
                    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_a_mount_needs_access_to_its_source(tmp_path: Path) -> None:
    """end-11: who may push here, and may not pull there, mounts nothing from there, and uploads:
    BuildKit would end its build at a refusal."""
    allowed = frozenset({(Action.PUSH, "ci/app"), (Action.PUSH, "other")})
    policy = Refusing(Denied(), allowed)
    async with serving(tmp_path / "data", policy) as client:
        found = await push_blob(client, b"content", "other")
        async with client.post(f"{UPLOADS}?mount={found}&from=other") as answer:
            assert answer.status == 202


@pytest.mark.parametrize(
    ("method", "path", "action", "repository"),
    [
        ("GET", "/v2/", Action.PULL, None),
        ("GET", "/v2/_catalog", Action.PULL, None),
        ("HEAD", BLOB, Action.PULL, "ci/app"),
        ("DELETE", BLOB, Action.DELETE, "ci/app"),
        ("POST", UPLOADS, Action.PUSH, "ci/app"),
        ("GET", f"{UPLOADS}session", Action.PUSH, "ci/app"),
        ("DELETE", f"{UPLOADS}session", Action.PUSH, "ci/app"),
        ("GET", "/v2/ci/app/manifests/tag", Action.PULL, "ci/app"),
        ("PUT", "/v2/ci/app/manifests/tag", Action.PUSH, "ci/app"),
        ("DELETE", "/v2/ci/app/manifests/tag", Action.DELETE, "ci/app"),
        ("GET", "/v2/ci/app/tags/list", Action.PULL, "ci/app"),
        ("GET", f"/v2/ci/app/referrers/{digest(b'x')}", Action.PULL, "ci/app"),
    ],
)
async def test_access_is_asked_for_what_is_done(
    tmp_path: Path, method: str, path: str, action: Action, repository: str | None
) -> None:
    """Once, with the credentials: reading is pull, writing push and removing delete."""
    policy = Refusing(Denied())
    async with (
        serving(tmp_path / "data", policy) as client,
        client.request(method, path, headers=_CREDENTIALS),
    ):
        pass

    assert policy.sent == ["Bearer token"]
    assert policy.asked == [(action, repository)]


async def test_a_refused_push_stores_nothing(tmp_path: Path) -> None:
    """403 comes before the body is looked at, and ends the connection that may still carry it."""
    async with serving(tmp_path / "data", Refusing(Denied())) as client:
        body = b"x" * 100_000
        async with client.post(f"{UPLOADS}?digest={digest(body)}", data=body) as answer:
            assert answer.status == 403

    assert list((tmp_path / "data" / ".spool").iterdir()) == []
    assert not (tmp_path / "data" / "default").exists()


async def test_a_mount_asks_to_pull_from_its_source(tmp_path: Path) -> None:
    """end-11: push to the target first, then pull from `from`, with the same credentials."""
    policy = Refusing(Denied(), frozenset({(Action.PUSH, "ci/app"), (Action.PULL, "other")}))
    target = f"{UPLOADS}?mount={digest(b'x')}&from=other"
    async with (
        serving(tmp_path / "data", policy) as client,
        client.post(target, headers=_CREDENTIALS) as answer,
    ):
        assert answer.status == 202

    assert policy.sent == ["Bearer token"]
    assert policy.asked == [(Action.PUSH, "ci/app"), (Action.PULL, "other")]
