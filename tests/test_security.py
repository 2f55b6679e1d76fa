"""What is read from files: at start, and again whenever it changes; TLS; and what is told."""

from __future__ import annotations

import asyncio
import mmap
import os
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import aiohttp
import pytest

from cacheproxy.access.policy import Action
from cacheproxy.app import App
from cacheproxy.cli.serve import warnings
from cacheproxy.config import load
from cacheproxy.errors import Denied, Unauthorized
from cacheproxy.listening import Listeners, is_loopback
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.tickets import load_secret
from cacheproxy.security import Security
from cacheproxy.settings import Config, ConfigError
from cacheproxy.storage.bucket import LocalFile
from cacheproxy.storage.folder import FolderBucket
from tests.access.doors import basic, htpasswd, signing_key
from tests.api.wire import digest, push_blob
from tests.cli.running import Builder, in_folder
from tests.real.port import Port
from tests.real.process import Daemon
from tests.s3.tls import certify
from tests.server import SERVE, Server

_NAME = Repository("ci/app")
_RULES = "  rules: [{users: [ann], actions: [%s], repositories: ['*']}]\n"


_SOME = "[{anonymous: true, actions: [pull], repositories: ['*']}]"


class Files:
    """Settings and passwords in a folder."""

    def __init__(self, folder: Path, **server: object) -> None:
        self.users = folder / "htpasswd"
        self.users.write_text(htpasswd("ann"))
        self.settings = folder / "settings.yaml"
        self._server = {f"server.{name}": str(value) for name, value in server.items()}
        self.allow("pull")
        self.security = Security(self.load(), self.load, str(self.settings))

    def load(self) -> Config:
        flags = {"auth.htpasswd_file": str(self.users), **self._server}
        return load(flags, {"HOME": "/"}, str(self.settings))

    def allow(self, actions: str) -> None:
        _replace(self.settings, "auth:\n" + _RULES % actions)

    async def may(self, action: Action, user: str = "ann") -> bool:
        """After a look at the files."""
        await self.security.look()
        try:
            identity = await self.security.access.identify(basic(user))
            self.security.access.authorize(identity, action, _NAME)
        except (Denied, Unauthorized):
            return False
        return True


def _replace(path: Path, text: str) -> None:
    """As an editor does, or Kubernetes: by another file of the same name."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


async def test_rules_count_when_they_are_written(tmp_path: Path) -> None:
    """Without a restart; those that were allowed and those that were not."""
    files = Files(tmp_path)
    assert (await files.may(Action.PULL), await files.may(Action.PUSH)) == (True, False)
    files.allow("push")
    assert (await files.may(Action.PULL), await files.may(Action.PUSH)) == (False, True)


async def test_users_count_when_they_are_written(tmp_path: Path) -> None:
    """Who is taken away is out, and who comes is in."""
    files = Files(tmp_path)
    assert await files.may(Action.PULL)
    _replace(files.users, htpasswd("bob"))
    assert not await files.may(Action.PULL)
    _replace(files.users, htpasswd("bob", "ann"))
    assert await files.may(Action.PULL)


@pytest.mark.parametrize(
    "text",
    [
        "auth: {rules: [{users: [ann], actions: [pull]}]}",
        "auth: {rules: [",
        "auth: {rles: []}",
        "auth: {rules: [{users: [ann], actions: [pul], repositories: ['*']}]}",
        "server: {listen: []}",
    ],
)
async def test_settings_that_are_broken_change_nothing(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor do they end the server; the log says what is wrong with them, once."""
    files = Files(tmp_path)
    _replace(files.settings, text)
    for _ in range(3):
        assert await files.may(Action.PULL)
    assert capsys.readouterr().out.count("reload_failed") == 1
    files.allow("push")
    assert await files.may(Action.PUSH)


async def test_passwords_that_are_broken_or_gone_change_nothing(tmp_path: Path) -> None:
    """A file that is half written, or away for a moment."""
    files = Files(tmp_path)
    _replace(files.users, htpasswd("ann") + "bob:plain\n")
    assert await files.may(Action.PULL)
    files.users.unlink()
    assert await files.may(Action.PULL)
    files.users.write_text(htpasswd("bob"))
    assert not await files.may(Action.PULL)


async def test_passwords_may_come_after_the_settings_that_name_them(tmp_path: Path) -> None:
    """Two files are never replaced at once; what was in force stays until both are there."""
    files = Files(tmp_path)
    files.users = tmp_path / "new"
    files.allow("push")
    assert await files.may(Action.PULL)
    files.users.write_text(htpasswd("ann"))
    assert await files.may(Action.PUSH)


async def test_whatever_a_file_does_the_next_look_comes(tmp_path: Path) -> None:
    """Though nobody has thought of it."""
    files = Files(tmp_path)
    _replace(files.settings, "[" * 100_000)  # deeper than the parser goes
    assert await files.may(Action.PULL)
    files.allow("push")
    assert await files.may(Action.PUSH)


async def test_access_control_is_not_turned_off_by_a_slip(tmp_path: Path) -> None:
    """An empty file opens nothing while the server runs."""
    settings = tmp_path / "settings.yaml"
    settings.write_text("auth:\n" + _RULES % "pull")

    def reload() -> Config:
        return load({}, {"HOME": "/"}, str(settings))

    security = Security(reload(), reload, str(settings))
    _replace(settings, "")
    await security.look()
    with pytest.raises(Unauthorized):
        security.access.authorize(await security.access.identify(None), Action.PULL, _NAME)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"auth.htpasswd_file": "{0}/none"}, "auth.htpasswd_file: .*none cannot be read"),
        ({"auth.htpasswd_file": "{0}/plain"}, "auth.htpasswd_file: line 1"),
        ({"auth.htpasswd_file": "{0}/binary"}, "auth.htpasswd_file: it is not text"),
        ({"auth.htpasswd_file": "{0}/good", "server.workers": "2"}, "auth.signing_key_file: work"),
        (
            {"auth.htpasswd_file": "{0}/good", "auth.signing_key_file": "{0}/plain"},
            "auth.signing_key_file: it is not a private key",
        ),
        (
            {"auth.htpasswd_file": "{0}/good", "auth.signing_key_file": "{0}/none"},
            "auth.signing_key_file: .* cannot be read",
        ),
        ({"server.tls_cert_file": "{0}/plain"}, "server.tls_cert_file: "),
        ({"server.tls_cert_file": "{0}/none"}, "server.tls_cert_file: "),
        ({"server.tls_key_file": "{0}/plain"}, "server.tls_key_file: "),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start(
    tmp_path: Path, flags: dict[str, str], says: str
) -> None:
    """In a sentence that names the setting and nothing of what is in the file."""
    (tmp_path / "plain").write_text("ann:secret\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "good").write_text(htpasswd("ann"))
    config = load({key: value.format(tmp_path) for key, value in flags.items()}, {"HOME": "/"})
    with pytest.raises(ConfigError, match=says) as refused:
        Security(config, lambda: config, None)
    assert "secret" not in str(refused.value)


def test_what_ends_the_start_is_told_in_one_line(tmp_path: Path) -> None:
    """By `serve`, with several workers too, and by `config check`."""
    site = in_folder(tmp_path)
    users = f"--auth-htpasswd-file={tmp_path}/none"
    assert "auth.htpasswd_file: " in site.fails("serve", "--listen=127.0.0.1:0", users)
    assert "auth.htpasswd_file: " in site.fails("config", "check", users)
    (tmp_path / "users").write_text(htpasswd("ann"))
    users = f"--auth-htpasswd-file={tmp_path}/users"
    said = site.fails("serve", "--listen=127.0.0.1:0", users, "--workers=2")
    assert said.startswith("auth.signing_key_file: ")
    assert "valid" in site.told("config", "check", users)


async def test_workers_take_each_others_tokens(tmp_path: Path) -> None:
    """By the key that they share; and they all take up new rules."""
    users, settings = tmp_path / "htpasswd", tmp_path / "settings.yaml"
    users.write_text(htpasswd("ann"))
    settings.write_text("auth:\n" + _RULES % "pull")
    flags = (
        f"--config={settings}",
        f"--auth-htpasswd-file={users}",
        f"--auth-signing-key-file={signing_key(tmp_path / 'key')}",
        "--workers=2",
    )
    with Server.running(tmp_path, *flags) as server:
        tokens = [await _token(server.host) for _ in range(4)]
        for token in tokens * 4:
            assert await _tags(server.host, token) == 404
        _replace(settings, "auth:\n" + _RULES % "push")
        server.daemon.wait_for(lambda: server.daemon.log.count('"reloaded"') == 2 or None)
        for token in tokens * 4:
            assert await _tags(server.host, token) == 403


async def _token(host: str) -> str:
    headers = {"Authorization": basic("ann")}
    url = f"http://{host}/token?scope=repository:ci/app:pull"
    async with aiohttp.request("GET", url, headers=headers) as answer:
        return str((await answer.json())["token"])


async def _tags(host: str, token: str) -> int:
    """The status of a request on a connection of its own, which any worker may get."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.request("GET", f"http://{host}/v2/ci/app/tags/list", headers=headers) as got:
        return got.status


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:5000", True),
        ("127.1.2.3:0", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("0.0.0.0:5000", False),
        ("[::]:5000", False),
        ("10.0.0.1:5000", False),
        ("cache.example:5000", False),
    ],
)
def test_loopback_is_told_from_networks(listen: str, loopback: bool) -> None:
    """What is not known to be loopback is none."""
    assert is_loopback(listen) is loopback


@contextmanager
def _listening(folder: Path, listen: str, *flags: str) -> Iterator[Daemon]:
    command = (*SERVE, f"--storage=file://{folder}/data", f"--listen={listen}", *flags)
    log = folder / "server.log"
    with Daemon.running(command, environment=os.environ, log=log) as daemon:
        daemon.wait_for_log('"serving"')
        yield daemon
        daemon.kill_all()


def test_an_open_registry_on_a_network_warns(tmp_path: Path) -> None:
    """Loudly; not on loopback, and not with access control."""
    (tmp_path / "users").write_text(htpasswd("ann"))
    with _listening(tmp_path, "0.0.0.0:0") as daemon:
        assert daemon.log.count("WARNING") == 3
        assert "WITHOUT ACCESS CONTROL" in daemon.log
    rules = "--auth-rules=[{users: [ann], actions: [pull], repositories: ['*']}]"
    for flags in (
        ("127.0.0.1:0",),
        ("0.0.0.0:0", f"--auth-htpasswd-file={tmp_path}/users", rules),
    ):
        with _listening(tmp_path, *flags) as daemon:
            assert "WARNING" not in daemon.log


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({}, ""),
        ({"server.listen": "0.0.0.0:1"}, "WITHOUT ACCESS CONTROL"),
        ({"server.listen": "0.0.0.0:1", "auth.htpasswd_file": "x"}, "nobody may do anything"),
        ({"storage.url": "s3://a", "auth.rules": _SOME}, "auth.signing_key_file is not set"),
        ({"storage.url": "s3://a", "auth.rules": _SOME, "auth.signing_key_file": "x"}, ""),
        ({"auth.rules": _SOME}, ""),
    ],
)
def test_what_is_more_often_a_mistake_is_told(flags: dict[str, str], says: str) -> None:
    """Once, at the start; nothing of it keeps the server from starting."""
    told = list(warnings(load(flags, {"HOME": "/"})))
    assert bool(told) == bool(says)
    assert says in " ".join(told)


class Ca:
    """Certificates of an authority, and clients that trust it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.made = certify(folder)

    @property
    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.made.authority)

    def copy_to(self, file: Path, key: Path) -> None:
        _replace(key, self.made.key.read_text())
        _replace(file, self.made.file.read_text())


async def test_blobs_go_out_whole_by_tls(tmp_path: Path) -> None:
    """Small and large, whole and in parts, and what is pushed comes in."""
    ca = Ca(tmp_path / "ca")
    content = os.urandom(3 << 20)
    async with _serving_by_tls(tmp_path, ca) as (url, _):
        connector = aiohttp.TCPConnector(ssl=ca.trusting)
        async with aiohttp.ClientSession(url, connector=connector) as client:
            for body in (content, b"small"):
                path = f"/v2/ci/app/blobs/{await push_blob(client, body)}"
                async with client.get(path) as answer:
                    assert await answer.read() == body
                async with client.get(path, headers={"Range": "bytes=2-"}) as answer:
                    assert (answer.status, await answer.read()) == (206, body[2:])
            ranges = {"Range": "bytes=0-99,1000000-1999999"}
            async with client.get(f"/v2/ci/app/blobs/{digest(content)}", headers=ranges) as answer:
                assert content[1_000_000:2_000_000] in await answer.read()


async def test_a_large_blob_by_tls_lets_others_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not much of it is encrypted in one turn, however much the client takes."""
    ca = Ca(tmp_path / "ca")
    turns, read_in = 0, set()
    read_at = LocalFile.read_at

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def read(file: LocalFile, offset: int, length: int) -> bytes:
        read_in.add(turns)
        return read_at(file, offset, length)

    monkeypatch.setattr(LocalFile, "read_at", read)
    async with _serving_by_tls(tmp_path, ca) as (url, _):
        connector = aiohttp.TCPConnector(ssl=ca.trusting)
        async with aiohttp.ClientSession(url, connector=connector) as client:
            path = f"/v2/ci/app/blobs/{await push_blob(client, os.urandom(4 << 20))}"
            others = asyncio.create_task(take_turns())
            async with client.get(path) as answer:
                await answer.read()
            others.cancel()

    assert len(read_in) >= 8


def test_blobs_by_tls_take_no_new_memory(tmp_path: Path) -> None:
    """A server that only reads has its pieces where the last ones were: to take memory anew from
    the kernel for each would cost more than the encryption."""
    ca = Ca(tmp_path / "ca")
    size = 32 << 20
    with Server.running(tmp_path) as server:
        pushed = Builder(server.host).push_blob(os.urandom(size))
    flags = (f"--server-tls-cert-file={ca.made.file}", f"--server-tls-key-file={ca.made.key}")
    with Server.running(tmp_path, *flags) as server:
        before = _faults(server.daemon.pid)
        url = f"https://{server.host}/v2/ci/app/blobs/{pushed}"
        with urllib.request.urlopen(url, timeout=60, context=ca.trusting) as answer:
            assert len(answer.read()) == size
        taken = _faults(server.daemon.pid) - before

    assert taken < size / mmap.PAGESIZE / 4


def _faults(pid: int) -> int:
    """How often the kernel has given a page of memory to a process."""
    # The name in parentheses may hold spaces; what follows it is fields 3 and on of proc(5).
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


async def test_operators_need_no_tls(tmp_path: Path) -> None:
    """On a listener of their own, probes and Prometheus trust nobody and need not."""
    ca = Ca(tmp_path / "ca")
    with closing(Port()) as port:
        async with _serving_by_tls(tmp_path, ca, port.host), aiohttp.ClientSession() as client:
            for path in ("/healthz", "/readyz", "/metrics"):
                async with client.get(f"http://{port.host}{path}") as answer:
                    assert answer.status == 200


async def test_a_new_certificate_is_taken_up(tmp_path: Path) -> None:
    """By the next connection, without a restart; a broken one is not."""
    old, new = Ca(tmp_path / "old"), Ca(tmp_path / "new")
    async with _serving_by_tls(tmp_path, old) as (url, security):
        assert await _trusted(url, old)
        new.copy_to(tmp_path / "tls.pem", tmp_path / "tls.key")
        await security.look()
        assert (await _trusted(url, old), await _trusted(url, new)) == (False, True)

        (tmp_path / "tls.pem").write_text("broken")
        await security.look()
        assert await _trusted(url, new)
        _replace(tmp_path / "tls.pem", old.made.file.read_text())  # not of the key that is there
        await security.look()
        assert await _trusted(url, new)


@asynccontextmanager
async def _serving_by_tls(
    folder: Path, ca: Ca, metrics: str = ""
) -> AsyncIterator[tuple[str, Security]]:
    file, key = folder / "tls.pem", folder / "tls.key"
    ca.copy_to(file, key)
    flags = {"server.tls_cert_file": str(file), "server.tls_key_file": str(key)}
    flags["metrics.listen"] = metrics
    config = load(flags, {"HOME": str(folder)})
    security = Security(config, lambda: config, None)
    bucket = FolderBucket(str(folder))
    app = App(config, bucket, await load_secret(bucket), security.access, security.tls)
    with closing(Listeners.bound("127.0.0.1:0", config.metrics.listen)) as listeners:
        async with app.serving(listeners.clients, listeners.operators):
            yield f"https://{listeners.address}", security


async def _trusted(url: str, ca: Ca) -> bool:
    connector = aiohttp.TCPConnector(ssl=ca.trusting)
    async with aiohttp.ClientSession(url, connector=connector) as client:
        try:
            async with client.get("/v2/") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectorCertificateError:
            return False
