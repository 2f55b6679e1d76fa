"""Namespaces in the settings: what they may be, and that they have one set of readers each."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.access.policy import Action
from cacheproxy.config import load
from cacheproxy.errors import Denied
from cacheproxy.oci.reference import Repository
from cacheproxy.rules import check_readers, namespaces
from cacheproxy.security import Security
from cacheproxy.settings import Config, ConfigError
from tests.access.doors import basic, htpasswd, policy
from tests.cli.running import Site
from tests.server import Server

_RULES = """
  groups: {blue: [ann], red: [bob]}
  rules:
    - {groups: [blue], actions: [pull, push], repositories: ["blue/*"]}
    - {groups: [red], actions: [pull, push], repositories: ["red/*"]}
"""
_APART = """
storage:
  namespaces:
    - {name: blue, repositories: ["blue/*"]}
    - {name: red, repositories: ["red/*"]}
"""
_REFUSED = (
    "auth.rules: in namespace default, rule 1 lets group blue pull blue/a but not red/a, which rule"
    " 2 lets others pull; repositories that share their blobs need the same readers: see"
    " storage.namespaces"
)


def _load(text: str) -> Config:
    return load({"storage.namespaces": text}, {"HOME": "/"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[{name: gc, repositories: [x]}]", "namespace 1: 'gc' is a word that the layout"),
        ("[{name: a, repositories: [x]}, {name: A, repositories: [x]}]", "namespace 2: 'A' is not"),
        ("[{name: a, repositories: []}]", "namespace a has no repositories"),
        ("[{name: a, repositories: [x]}, {name: a, repositories: [y]}]", "two with the name a"),
    ],
)
def test_a_namespace_that_is_none_is_refused(text: str, says: str) -> None:
    """In a sentence that tells which one."""
    with pytest.raises(ConfigError, match=f"^storage.namespaces: .*{says}"):
        namespaces(_load(text).storage)


@pytest.mark.parametrize(
    ("patterns", "why"),
    [
        (["['a/*', 'b/*']", "['a/x', 'b/*']"], "earlier ones have all that its patterns match"),
        (["['*']", "['a/*']"], "earlier ones have all that its patterns match"),
        (["['a/*']", "['Team/*', '/x']"], "its patterns match no name of one"),
    ],
)
def test_a_namespace_that_can_have_no_repository_is_refused(patterns: list[str], why: str) -> None:
    """Somebody believes that it keeps things apart."""
    first, second = patterns
    text = f"[{{name: one, repositories: {first}}}, {{name: two, repositories: {second}}}]"

    with pytest.raises(ConfigError) as refused:
        namespaces(_load(text).storage)
    told = f"storage.namespaces: namespace two can have no repository: {why}"
    assert str(refused.value) == told


def test_nothing_may_be_left_for_the_default_namespace() -> None:
    """Where the last one has the rest. The first that matches has a repository."""
    text = "[{name: a, repositories: ['a/*']}, {name: b, repositories: ['*']}]"
    found = namespaces(_load(text).storage)

    assert found.of(Repository("a/x")).name == "a"
    assert found.of(Repository("x")).name == "b"


@pytest.mark.parametrize(
    "text", ["x", "[x]", "[{name: a}]", "[{name: a, repositories: x}]", "[{nam: a}]"]
)
def test_namespaces_with_a_slip_are_refused(text: str) -> None:
    """What is no list of them, and unknown fields."""
    with pytest.raises(ConfigError, match=r"^storage\.namespaces"):
        _load(text)


def test_namespaces_stay_where_the_storage_has_its_default_place() -> None:
    """They are settings of the storage, whose place need not be told."""
    storage = _load("[{name: a, repositories: [x]}]").storage

    assert storage.url.startswith("file:///")
    assert [rule.name for rule in storage.namespaces] == ["a"]


def test_a_namespace_with_different_readers_is_refused() -> None:
    """The line names it, both rules, and a repository of each. Apart they are no trouble."""
    rules = policy(_RULES.replace("\n  ", "\n"))
    apart = "[{name: blue, repositories: ['blue/*']}, {name: red, repositories: ['red/*']}]"

    check_readers(rules, namespaces(_load(apart).storage))
    with pytest.raises(ConfigError) as refused:
        check_readers(rules, namespaces(_load("[]").storage))
    assert str(refused.value) == _REFUSED


def test_patterns_that_cannot_be_compared_are_refused() -> None:
    """Rather than taken for good."""
    many = "*a" + "?" * 40
    rules = policy(
        "rules:\n"
        f"  - {{users: [x], actions: [pull], repositories: ['{many}']}}\n"
        f"  - {{users: [y], actions: [pull], repositories: ['*']}}\n"
    )
    found = namespaces(_load(f"[{{name: a, repositories: ['{many}*']}}]").storage)

    with pytest.raises(ConfigError, match=r"namespace a .* too intricate"):
        check_readers(rules, found)


def _site(folder: Path, text: str) -> Site:
    (folder / "users").write_text(htpasswd("ann", "bob"))
    (folder / "settings.yaml").write_text(text)
    return Site((f"--config={folder}/settings.yaml",))


def test_different_readers_end_the_start_in_one_line(tmp_path: Path) -> None:
    """That of servers, of one process and of several, and `config check` says it before."""
    text = f"auth:\n  htpasswd_file: {tmp_path}/users\n{_RULES}"
    site = _site(tmp_path, text)

    assert site.fails("config", "check") == _REFUSED
    for workers in ("1", "2"):
        storage = f"--storage=file://{tmp_path}/data"
        serve = ("serve", "--listen=127.0.0.1:0", storage, f"--server-workers={workers}")
        said = site.fails(*serve)
        assert said == _REFUSED or said.startswith("auth.signing_key_file: ")
    assert not (tmp_path / "data").exists()
    assert "valid" in _site(tmp_path, text + _APART).told("config", "check")


def test_without_access_control_everybody_reads_everything(tmp_path: Path) -> None:
    """So namespaces may be as they like; their names are looked at all the same."""
    assert "valid" in _site(tmp_path, _APART).told("config", "check")
    site = _site(tmp_path, _APART.replace("name: red", "name: gc"))
    assert site.fails("config", "check").startswith("storage.namespaces: namespace 2: ")


def test_the_namespace_is_told_with_a_decision(tmp_path: Path) -> None:
    """By `policy test`, where there are several."""
    site = _site(tmp_path, "auth:\n" + _RULES + _APART)

    assert "\n  blue/app is in namespace blue\n" in site.told(
        "policy", "test", "ann", "pull", "blue/app"
    )
    said = site.told("policy", "test", "ann", "pull", "other", status=1)
    assert said.endswith("\n  other is in namespace default\n")


def test_a_server_collects_every_namespace(tmp_path: Path) -> None:
    """Each when it is due, as it would the only one."""
    settings = tmp_path / "settings.yaml"
    settings.write_text(_APART)
    flags = (f"--config={settings}", "--collection-interval-seconds=0.1")
    with Server.running(tmp_path, *flags) as server:
        for name in ("blue", "red", "default"):
            server.daemon.wait_for_log(rf'"namespace":"{name}".*"event":"collected"')


async def test_rules_that_divide_a_namespace_are_not_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While servers run the old ones stay in force, and the log says why, for the namespaces that
    servers have: new ones in the same file count from the next start."""
    settings = tmp_path / "settings.yaml"
    (tmp_path / "users").write_text(htpasswd("ann", "bob"))

    def write(text: str) -> None:
        other = tmp_path / "new"
        other.write_text(f"auth:\n  htpasswd_file: {tmp_path}/users\n{text}")
        other.replace(settings)

    def reload() -> Config:
        return load({}, {"HOME": "/"}, str(settings))

    async def may_pull(name: str) -> bool:
        await security.look()
        try:
            identity = await security.access.identify(basic("ann"))
            security.access.authorize(identity, Action.PULL, Repository(name))
        except Denied:
            return False
        return True

    everything = "  rules: [{users: [ann], actions: [pull], repositories: ['*']}]\n"
    write(everything)
    security = Security(reload(), reload, str(settings))
    assert await may_pull("red/app")

    write(_RULES + _APART)
    assert await may_pull("red/app")
    assert _REFUSED in capsys.readouterr().out
    security = Security(reload(), reload, str(settings))
    assert not await may_pull("red/app")

    write(everything + _APART)
    assert await may_pull("red/app")
