"""Every endpoint under access control: what each needs, and what it answers to who lacks it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from cacheproxy.access.control import ControlledAccess
from cacheproxy.access.htpasswd import Passwords
from cacheproxy.api import entrance
from cacheproxy.api.call import Call
from cacheproxy.api.routes import Noun, parse_path
from cacheproxy.app import App
from cacheproxy.config import load
from cacheproxy.rules import check_readers, namespaces
from cacheproxy.storage.folder import FolderBucket
from tests.access.doors import (
    BASE,
    NAMESPACES,
    PASSWORD,
    USERS,
    Clock,
    basic,
    door,
    htpasswd,
    policy,
    tokens,
)
from tests.api.wire import (
    BLOB,
    MANIFEST,
    METHODS,
    UPLOADS,
    digest,
    manifest,
    next_page,
    push_blob,
    push_manifest,
    raw,
)
from tests.server import serving

Client = aiohttp.ClientSession

_MANIFEST = "/v2/ci/app/manifests/tag"

# What each endpoint needs in ci/app, or "login": any credentials will do. "token" sells tokens.
_NEEDS = {
    ("GET", "/v2/"): "login",
    ("HEAD", "/v2/"): "login",
    ("GET", "/v2/_catalog"): "login",
    ("GET", BLOB): "pull",
    ("HEAD", BLOB): "pull",
    ("DELETE", BLOB): "delete",
    ("POST", UPLOADS): "push",
    ("GET", f"{UPLOADS}session"): "push",
    ("PATCH", f"{UPLOADS}session"): "push",
    ("PUT", f"{UPLOADS}session"): "push",
    ("DELETE", f"{UPLOADS}session"): "push",
    ("GET", _MANIFEST): "pull",
    ("HEAD", _MANIFEST): "pull",
    ("PUT", _MANIFEST): "push",
    ("DELETE", _MANIFEST): "delete",
    ("GET", "/v2/ci/app/tags/list"): "pull",
    ("GET", f"/v2/ci/app/referrers/{digest(b'x')}"): "pull",
    ("GET", "/token"): "token",
    ("POST", "/token"): "token",
}
_GUARDED = [(method, path, needs) for (method, path), needs in _NEEDS.items() if needs != "token"]
_ACTIONS = ("pull", "push", "delete")

# A user for each action that may do only that, and one that may do all but that.
_RULES = "htpasswd_file: unused\nrules:\n" + "".join(
    f"  - {{users: [{user}], actions: [{', '.join(actions)}], repositories: ['ci/*']}}\n"
    for action in _ACTIONS
    for user, actions in (
        (f"only-{action}", [action]),
        (f"not-{action}", [other for other in _ACTIONS if other != action]),
    )
)
_PEOPLE = [f"{which}-{action}" for which, action in product(("only", "not"), _ACTIONS)]


def _every_route() -> set[tuple[str, str]]:
    return {(method, path) for path, methods in METHODS.items() for method in methods}


def test_no_route_is_forgotten(tmp_path: Path) -> None:
    """The tables of these tests are those of the application: a new route must be added here."""
    config = load({}, {"HOME": str(tmp_path)})
    routes = App(config, FolderBucket(str(tmp_path)), b"x" * 32).entrance._routes
    nouns = {parse_path(path)[0]: methods for path, methods in METHODS.items()}

    assert nouns == {noun: set(methods) for noun, methods in routes.items()}
    assert set(nouns) == set(Noun)
    assert set(_NEEDS) == _every_route()


def _people(clock: Clock) -> ControlledAccess:
    passwords = Passwords.parse(htpasswd(*_PEOPLE))
    return ControlledAccess(passwords, policy(_RULES), tokens(clock), clock)


def _serving(
    folder: Path, access: ControlledAccess, url: str = ""
) -> AbstractAsyncContextManager[Client]:
    """A client of a registry that could be started with these rules."""
    settings = {"storage__namespaces": NAMESPACES, "server__public_url": url}
    return serving(folder / "data", access, None, **settings)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def guarded(tmp_path: Path, clock: Clock) -> AsyncIterator[Client]:
    """A client of a registry with `_PEOPLE`."""
    async with _serving(tmp_path, _people(clock)) as session:
        yield session


@pytest.fixture
async def client(tmp_path: Path, clock: Clock) -> AsyncIterator[Client]:
    """A client of a registry with `USERS`, some things in it."""
    async with _serving(tmp_path, door(clock)) as session:
        yield session


async def _ask(client: Client, method: str, path: str, credentials: str | None) -> tuple[int, str]:
    """Status and challenge. Sent byte by byte, as clients send bodies with anything."""
    header = f"Authorization: {credentials}\r\n" if credentials is not None else ""
    async with raw(client) as wire:
        await wire.send(f"{method} {path} HTTP/1.1\r\nHost: cache.example:5000\r\n{header}\r\n")
        status, head = await wire.answer()
    [challenge] = [
        line.partition(": ")[2]
        for line in head.splitlines()
        if line.lower().startswith("www-authenticate:")
    ] or [""]
    assert (status == 401) == bool(challenge)
    return status, challenge


async def _token(client: Client, user: str | None, *scopes: str) -> str:
    """A Bearer header."""
    headers = {"Authorization": basic(user)} if user else {}
    query = [("service", "cacheproxy"), *(("scope", scope) for scope in scopes)]
    async with client.get("/token", params=query, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return f"Bearer {(await answer.json())['token']}"


async def test_without_credentials_there_is_a_challenge(guarded: Client) -> None:
    """401 at every endpoint, that tells where there is a token, for whom and for what."""
    start = 'Bearer realm="http://cache.example:5000/token",service="cacheproxy"'
    scopes = {
        "pull": ',scope="repository:ci/app:pull"',
        "push": ',scope="repository:ci/app:pull,push"',
        "delete": ',scope="repository:ci/app:delete"',
        "login": "",
    }
    for method, path, needs in _GUARDED:
        scope = ',scope="registry:catalog:*"' if path == "/v2/_catalog" else scopes[needs]
        assert await _ask(guarded, method, path, None) == (401, start + scope), (method, path)


async def test_who_may_all_but_this_is_denied(guarded: Client) -> None:
    """403 at every endpoint, for each action by itself: pull is none of push, nor of delete."""
    for method, path, needs in _GUARDED:
        for action in _ACTIONS:
            for user in (f"only-{action}", f"not-{action}"):
                may = needs == "login" or (action == needs) == user.startswith("only")
                for credentials in (basic(user), await _token(guarded, user, _everything())):
                    status, _ = await _ask(guarded, method, path, credentials)
                    assert (status != 403) == may, (method, path, user)
                    assert status != 401, (method, path, user)


def _everything() -> str:
    return "repository:ci/app:* registry:catalog:*"


async def test_what_are_no_good_credentials_is_refused_everywhere(
    guarded: Client, clock: Clock
) -> None:
    """A wrong password, an unknown user, and tokens that are bad, foreign or expired."""
    expired = await _token(guarded, "not-delete", _everything())
    clock.now += 1000
    other = tokens(clock, service="https://other.example").issue("not-delete", ())
    bad = {
        basic("not-delete", "wrong"): "",
        basic("nobody"): "",
        "Basic x": "",
        "Digest x": "",
        "Bearer x": 'error="invalid_token"',
        expired: 'error="invalid_token"',
        f"Bearer {other.text}": 'error="invalid_token"',
    }
    for (method, path, _), (credentials, error) in product(_GUARDED, bad.items()):
        status, challenge = await _ask(guarded, method, path, credentials)
        assert (status, method, path) == (401, method, path)
        assert ("error=" in challenge, error in challenge) == (bool(error), True)


async def test_a_token_for_something_else_is_refused_everywhere(guarded: Client) -> None:
    """The client is told to ask for one with a larger scope; the user may do it, after all."""
    for method, path, needs in _GUARDED:
        if needs == "login":
            continue
        others = ",".join(action for action in _ACTIONS if action != needs)
        for scope in (f"repository:ci/app:{others}", f"repository:ci/other:{needs}"):
            token = await _token(guarded, f"only-{needs}", scope)
            status, challenge = await _ask(guarded, method, path, token)
            assert (status, method, path) == (401, method, path)
            assert 'error="insufficient_scope"' in challenge


async def test_a_token_of_nobody_is_refused_where_nothing_is_open(guarded: Client) -> None:
    """It says only that nobody is asking; with it the version is told, as clients check it."""
    token = await _token(guarded, None, _everything())
    for method, path, needs in _GUARDED:
        status, _ = await _ask(guarded, method, path, token)
        assert (status == 401) == (needs != "login"), (method, path)


@pytest.mark.parametrize("path", ["/v2/ci/app/nothing", "/nothing", "/v2/..", "/v2/A/tags/list"])
async def test_what_is_nothing_tells_nobody_so(guarded: Client, path: str) -> None:
    """Not even which paths there are."""
    assert (await _ask(guarded, "GET", path, None))[0] == 401


async def test_a_refused_push_leaves_nothing(client: Client, tmp_path: Path) -> None:
    """Whatever the body: it is not looked at."""
    for user in (None, "reader", "cleaner", "stranger"):
        headers = {"Authorization": basic(user)} if user else {}
        body = b"x" * 100_000
        target = f"{UPLOADS}?digest={digest(body)}"
        async with client.post(target, data=body, headers=headers) as answer:
            assert answer.status == (403 if user else 401)
    assert not list((tmp_path / "data").glob("*/blobs"))


async def test_what_is_open_to_everybody_needs_nothing(tmp_path: Path) -> None:
    """By rule: neither a token nor a password, and with either it is open too; pushing is not."""
    async with _serving(tmp_path, door()) as session:
        found = await _seed(session, b"content", "base/busybox")
        path = f"/v2/base/busybox/blobs/{found}"
        tokens_ = [
            await _token(session, user, "repository:base/busybox:pull")
            for user in (None, "stranger")
        ]
        for credentials in (None, basic("stranger"), *tokens_):
            assert (await _ask(session, "GET", path, credentials))[0] == 200
        for credentials, status in ((None, 401), (basic("stranger"), 403), (tokens_[0], 401)):
            target = "/v2/base/busybox/blobs/uploads/"
            assert (await _ask(session, "POST", target, credentials))[0] == status
        assert (await _ask(session, "GET", path, basic("stranger", "wrong")))[0] == 401


@pytest.mark.parametrize("query", ["", "?n=1"])
async def test_the_catalog_shows_what_may_be_pulled(tmp_path: Path, query: str) -> None:
    """And nothing else, on no page; a token shows no more than its user, or than its scope."""
    async with _serving(tmp_path, door()) as session:
        for name in ("a/secret", "base/busybox", "base/x", "ci/app", "z/secret"):
            await _seed(session, b"{}", name)
            headers = {"Content-Type": MANIFEST, "Authorization": basic("admin")}
            target = f"/v2/{name}/manifests/tag"
            async with session.put(target, data=manifest(), headers=headers) as answer:
                assert answer.status == 201
        everything, base = ["base/busybox", "base/x", "ci/app"], ["base/busybox", "base/x"]
        scope = "registry:catalog:*"
        for credentials, names in (
            (basic("runner"), everything),
            (await _token(session, "runner", scope), everything),
            (await _token(session, "runner", "repository:ci/app:pull"), ["ci/app"]),
            (await _token(session, "runner"), []),
            (basic("pusher"), base),
            (await _token(session, None, scope), base),
        ):
            assert await _catalog(session, f"/v2/_catalog{query}", credentials) == names


async def _seed(client: Client, content: bytes, name: str) -> str:
    """Have somebody push who may do everything."""
    client.headers["Authorization"] = basic("admin")
    try:
        return await push_blob(client, content, name)
    finally:
        del client.headers["Authorization"]


async def _catalog(client: Client, path: str, credentials: str) -> list[str]:
    names: list[str] = []
    while path:
        async with client.get(path, headers={"Authorization": credentials}) as answer:
            names += (await answer.json())["repositories"]
            path = next_page(answer)
    return names


async def test_a_mount_needs_to_pull_from_its_source(tmp_path: Path) -> None:
    """end-11: by the policy, and by the token. Who may not uploads, as where there is nothing, and
    so does who asks for what has other readers."""
    async with _serving(tmp_path, door()) as session:
        ours = await _seed(session, b"ours", "ci/other")
        base = await _seed(session, b"base", "base/busybox")
        wide = await _token(session, "runner", "repository:ci/app:push repository:ci/other:pull")
        narrow = await _token(session, "runner", "repository:ci/app:push")
        for credentials, mounted, source, status in (
            (basic("runner"), ours, "ci/other", 201),
            (basic("pusher"), ours, "ci/other", 202),
            (wide, ours, "ci/other", 201),
            (narrow, ours, "ci/other", 202),
            (basic("runner"), base, "base/busybox", 202),
            (basic("admin"), base, "base/busybox", 202),
        ):
            target = f"{UPLOADS}?mount={mounted}&from={source}"
            assert (await _ask(session, "POST", target, credentials))[0] == status


async def test_metrics_need_a_rule(client: Client) -> None:
    """They tell what is done here; probes tell nothing."""
    for credentials, status in (
        (None, 401),
        (basic("runner"), 403),
        (basic("scraper", "wrong"), 401),
        (basic("scraper"), 200),
    ):
        assert (await _ask(client, "GET", "/metrics", credentials))[0] == status
    for path in ("/healthz", "/readyz"):
        assert (await _ask(client, "GET", path, None))[0] == 200


async def test_metrics_may_be_open(tmp_path: Path) -> None:
    """To everybody, by rule."""
    text = "htpasswd_file: unused\nrules: [{anonymous: true, actions: [metrics]}]"
    async with serving(tmp_path / "data", door(text=text)) as session:
        assert (await _ask(session, "GET", "/metrics", None))[0] == 200


async def test_a_password_is_good_for_every_request(client: Client) -> None:
    """Basic, without any token, as curl and scripts send it."""
    headers = {"Authorization": basic("runner")}
    target = f"{UPLOADS}?digest={digest(b'content')}"
    async with client.post(target, data=b"content", headers=headers) as answer:
        assert answer.status == 201
    path = f"/v2/ci/app/blobs/{digest(b'content')}"
    async with client.get(path, headers=headers) as answer:
        assert await answer.read() == b"content"


async def test_every_push_and_delete_is_told_for_audits(client: Client) -> None:
    """Who, what and where, once for each that succeeds, and for each that is denied."""
    with capture_logs() as lines:
        client.headers["Authorization"] = basic("runner")
        content = await push_blob(client, b"{}")
        async with client.post(UPLOADS) as begun:
            target = f"{begun.headers['Location']}?digest={digest(b'y')}"
        async with client.put(target, data=b"y") as answer:
            assert answer.status == 201
        await push_manifest(client, "tag", manifest())
        async with client.delete(_MANIFEST) as answer:
            assert answer.status == 403
        client.headers["Authorization"] = basic("cleaner")
        async with client.delete(_MANIFEST) as answer:
            assert answer.status == 202
        async with client.get("/v2/") as answer:
            assert answer.status == 200

    told = [line for line in lines if line["event"] == "audit"]
    assert [(line["user"], line["action"], line["status"]) for line in told] == [
        ("runner", "push", 201),
        ("runner", "push", 201),
        ("runner", "push", 201),
        ("runner", "delete", 403),
        ("cleaner", "delete", 202),
    ]
    assert {line["repository"] for line in told} == {"ci/app"}
    assert [line["digest"] for line in told] == [
        content,
        digest(b"y"),
        digest(manifest()),
        None,
        None,
    ]
    assert [line["reference"] for line in told] == [None, None, "tag", "tag", "tag"]


async def test_mounts_and_deletions_of_blobs_are_told_for_audits_too(client: Client) -> None:
    """A mount that finds nothing stores nothing, and begins an upload."""
    client.headers["Authorization"] = basic("runner")
    found, absent = await push_blob(client, b"{}"), digest(b"absent")
    with capture_logs() as lines:
        for name, status in ((found, 201), (absent, 202)):
            async with client.post(f"{UPLOADS}?mount={name}") as answer:
                assert answer.status == status
        client.headers["Authorization"] = basic("cleaner")
        async with client.delete(f"/v2/ci/app/blobs/{found}") as answer:
            assert answer.status == 202

    told = [line for line in lines if line["event"] == "audit"]
    assert [(line["endpoint"], line["action"], line["status"]) for line in told] == [
        ("end-11", "push", 201),
        ("end-10", "delete", 202),
    ]


async def test_what_was_done_is_told_for_audits_though_its_client_has_gone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hangs up before the answer has pushed and deleted all the same."""

    async def hang_up(call: Call, response: web.StreamResponse) -> None:
        raise ConnectionResetError

    async def ask(method: str, path: str, data: bytes, user: str) -> None:
        headers = {"Authorization": basic(user), "Content-Type": MANIFEST}
        with pytest.raises(aiohttp.ClientError):
            async with client.request(method, path, data=data, headers=headers):
                pass

    monkeypatch.setattr(entrance, "_send", hang_up)
    monkeypatch.setattr(client, "_retry_connection", False)  # it would ask once more
    with capture_logs() as lines:
        await ask("POST", f"{UPLOADS}?digest={digest(b'{}')}", b"{}", "runner")
        await ask("PUT", _MANIFEST, manifest(), "runner")
        await ask("DELETE", _MANIFEST, b"", "cleaner")
        await ask("DELETE", _MANIFEST, b"", "cleaner")

    audits = [line for line in lines if line["event"] == "audit"]
    assert [(line["action"], line["status"]) for line in audits] == [
        ("push", 201),
        ("push", 201),
        ("delete", 202),
    ]
    assert [line["digest"] for line in audits] == [digest(b"{}"), digest(manifest()), None]
    assert [line["status"] for line in lines if line["event"] == "request"] == [499] * 4


async def test_no_credentials_are_logged(client: Client) -> None:
    """Good or bad, in a header, a query or a form; nor a token."""
    with capture_logs() as lines:
        token = await _token(client, "runner", "repository:ci/app:pull")
        for credentials in (
            basic("runner"),
            basic("runner", "wrong-secret"),
            token,
            "Bearer s.e.c",
        ):
            for path in ("/v2/", _MANIFEST, f"/token?scope={token}", "/metrics"):
                await _ask(client, "GET", path, credentials)
        for password in (PASSWORD, "wrong-secret"):
            await _form(client, username="runner", password=password)
    text = repr(lines)
    assert "request" in text
    for secret in (PASSWORD, "wrong-secret", token[7:], "s.e.c", basic("runner")[6:]):
        assert secret not in text


async def _form(client: Client, **fields: str) -> tuple[int, Any, Mapping[str, str]]:
    form = {"grant_type": "password", "service": "cacheproxy", **fields}
    async with client.post("/token", data=form) as answer:
        return answer.status, await answer.json(), answer.headers


def _access(token: str) -> list[dict[str, Any]]:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return list(claims["access"])


async def test_a_token_is_sold_for_a_password_by_form(client: Client) -> None:
    """As BuildKit asks first: scopes in one field, separated by spaces."""
    status, told, headers = await _form(
        client,
        client_id="buildkit-client",
        username="runner",
        password=PASSWORD,
        scope="repository:base/x:pull repository:ci/app:pull,push,delete",
    )

    assert (status, told["expires_in"], headers["Cache-Control"]) == (200, 300, "no-store")
    assert told["access_token"] == told["token"]
    assert told["issued_at"] == "1970-01-12T13:46:40Z"
    assert _access(told["token"]) == [
        {"type": "repository", "name": "base/x", "actions": ["pull"]},
        {"type": "repository", "name": "ci/app", "actions": ["pull", "push"]},
    ]


async def test_a_wrong_password_buys_no_token(client: Client) -> None:
    """401 with words, by either way; nor does a token, or a form without a password."""
    token = await _token(client, "runner")
    for fields in (
        {"username": "runner", "password": "wrong"},
        {"username": "nobody", "password": PASSWORD},
        {"username": "runner"},
        {},
    ):
        status, told, headers = await _form(client, **fields)
        assert (status, told["errors"][0]["code"]) == (401, "UNAUTHORIZED")
        assert headers["WWW-Authenticate"].startswith("Basic realm=")
        assert "user name or the password" in told["errors"][0]["detail"]
    for credentials in (basic("runner", "wrong"), basic("nobody"), token, "Bearer x", "x"):
        status, challenge = await _ask(client, "GET", "/token", credentials)
        assert (status, challenge.startswith("Basic realm=")) == (401, True)


async def test_docker_logs_in(client: Client) -> None:
    """A challenge, then a token for no scope at all, then the version check with it."""
    query = "account=runner&client_id=docker&offline_token=true&service=cacheproxy"
    headers = {"Authorization": basic("runner")}
    async with client.get(f"/token?{query}", headers=headers) as answer:
        told = await answer.json()
    assert set(told) == {"token", "access_token", "expires_in", "issued_at"}
    assert _access(told["token"]) == []
    assert (await _ask(client, "GET", "/v2/", f"Bearer {told['token']}"))[0] == 200


async def test_the_largest_token_fits_a_header(client: Client) -> None:
    """It would be of no use else."""
    names = [f"{number}" + "x" * 253 for number in range(10, 70)]
    scope = " ".join(f"repository:{name}:*" for name in names)
    _, told, _ = await _form(client, username="admin", password=PASSWORD, scope=scope)
    assert len(_access(told["token"])) == 60
    path = f"/v2/{names[-1]}/tags/list"
    assert (await _ask(client, "GET", path, f"Bearer {told['token']}"))[0] == 404


@pytest.mark.parametrize(
    "form", [{"grant_type": "refresh_token", "refresh_token": "x"}, {"grant_type": ""}, {"a": "b"}]
)
async def test_other_grants_are_refused(client: Client, form: dict[str, str]) -> None:
    """Tokens to refresh with are never given."""
    async with client.post("/token", data=form) as answer:
        assert answer.status == 400


@pytest.mark.parametrize("body", [b"\xff", b"a&" * 200, b"x" * 100_000])
async def test_what_is_no_form_is_refused(client: Client, body: bytes) -> None:
    """Not with a fault of ours."""
    async with client.post("/token", data=body) as answer:
        assert answer.status == 400


async def test_the_realm_is_the_public_address(tmp_path: Path) -> None:
    """Where one is set; a name that the client makes up never gets into the header as it is."""
    url = "https://cache.example/"
    async with _serving(tmp_path, door(), url) as session:
        _, challenge = await _ask(session, "GET", "/v2/", None)
        assert challenge.startswith('Bearer realm="https://cache.example/token",')


async def test_what_the_client_calls_the_registry_is_not_repeated_blindly(client: Client) -> None:
    """It would get into a header."""
    async with raw(client) as wire:
        await wire.send('GET /v2/ HTTP/1.1\r\nHost: x",error="y\r\n\r\n')
        status, head = await wire.answer()
        assert (status, 'realm="http://localhost/token"' in head) in ((401, True), (400, False))


async def test_an_open_registry_sells_no_tokens(tmp_path: Path) -> None:
    """And asks nobody for credentials; those that are sent do no harm."""
    async with serving(tmp_path / "data") as session:
        assert (await _ask(session, "GET", "/token", None))[0] == 404
        assert (await _ask(session, "GET", "/v2/", basic("runner", "any")))[0] == 200
        assert (await _ask(session, "GET", "/metrics", None))[0] == 200


@pytest.mark.parametrize("text", [BASE, _RULES])
def test_the_scenes_can_be_started(text: str) -> None:
    """The repositories of each namespace have the same readers."""
    config = load({"storage.namespaces": NAMESPACES}, {"HOME": "/"})
    check_readers(policy(text), namespaces(config.storage))


def test_everybody_is_in_the_scene() -> None:
    """The users of the rules have passwords."""
    assert {"runner", "reader", "pusher", "cleaner", "scraper"} < set(USERS)
