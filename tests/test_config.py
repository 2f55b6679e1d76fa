"""Settings, and the commands that take them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from cacheproxy.config import as_yaml, load
from cacheproxy.settings import ConfigError, settings
from tests.real.port import Port
from tests.server import Server

_HOME = {"HOME": "/home/someone"}


def _file(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text(text)
    return str(path)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    """Each source overrides those below it, setting by setting."""
    file = _file(tmp_path, "server: {listen: 'a:1', workers: 2, header_timeout: 3}")
    environment = {"CACHEPROXY_SERVER__LISTEN": "b:2", "CACHEPROXY_SERVER__WORKERS": "3"}

    found = load({"server.listen": "c:3"}, environment, file).server

    assert (found.listen, found.workers, found.header_timeout) == ("c:3", 3, 3.0)
    assert found.body_idle_timeout == 1800.0


def test_every_setting_has_a_variable() -> None:
    """What `config show` prints, given as variables, is the same configuration."""
    tree = yaml.safe_load(as_yaml(load({}, _HOME)))
    environment = {each.variable: str(tree[each.section][each.name]) for each in settings()} | _HOME

    assert load({}, environment) == load({}, _HOME)


@pytest.mark.parametrize("value", ["4194304", "4096KiB", "4MiB", " 4 MiB "])
def test_sizes_may_have_a_unit(value: str) -> None:
    """Bytes are written as people write them."""
    assert load({"limits.manifest_bytes": value}, _HOME).limits.manifest_bytes == 4 << 20


def test_data_lives_where_data_belongs() -> None:
    """By default in XDG_DATA_HOME, or where that is by default."""
    assert load({}, {"XDG_DATA_HOME": "/data"}).storage.url == "file:///data/cacheproxy"
    assert load({}, _HOME).storage.url == "file:///home/someone/.local/share/cacheproxy"


@pytest.mark.parametrize("text", ["server: {lisen: x}", "lisen: x", "server: {listen: {}}", "[]"])
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    """Unknown keys, wrong types and no settings at all."""
    with pytest.raises(ConfigError):
        load({}, _HOME, _file(tmp_path, text))


def test_an_unknown_key_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    """A slip of the finger is found at once."""
    with pytest.raises(ConfigError, match=r"server\.lisen .*did you mean server\.listen\?"):
        load({}, _HOME, _file(tmp_path, "server: {lisen: x}"))


def test_an_unknown_variable_is_told_with_the_nearest_one() -> None:
    """A variable with `__` is meant for us, so it must be one of ours."""
    with pytest.raises(ConfigError, match=r"did you mean storage\.url\?"):
        load({}, {"CACHEPROXY_STORAGE__URI": "x"})


def test_variables_of_kubernetes_are_none_of_ours() -> None:
    """For a service called cacheproxy it sets variables that begin like ours."""
    environment = {"CACHEPROXY_PORT": "tcp://10.0.0.1:5000", "CACHEPROXY_SERVICE_HOST": "10.0.0.1"}

    assert load({}, environment | _HOME) == load({}, _HOME)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.workers", "0"),
        ("server.workers", "many"),
        ("server.header_timeout", "-1"),
        ("limits.blob_bytes", "4 parsecs"),
        ("log.level", "loud"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_setting(key: str, value: str) -> None:
    """One sentence that begins with the name of the setting."""
    with pytest.raises(ConfigError, match=f"^{key}: "):
        load({key: value}, _HOME)


@pytest.mark.parametrize("key", ["server.listen", "metrics.listen"])
def test_an_address_may_be_in_brackets(key: str, tmp_path: Path) -> None:
    """As those of IPv6 are, wherever it is given: only lists and tables are read as YAML."""
    section, name = key.split(".")
    variable = {f"CACHEPROXY_{section}__{name}".upper(): "[::]:5000"}
    file = _file(tmp_path, f"{section}: {{{name}: '[::]:5000'}}")

    for config in (load({key: "[::]:5000"}, _HOME), load({}, variable), load({}, _HOME, file)):
        assert getattr(getattr(config, section), name) == "[::]:5000"


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("clients.trusted_proxies", "['::1']", "('::1',)"),
        ("auth.groups", "{ci: [a, b]}", "{'ci': ('a', 'b')}"),
    ],
)
def test_lists_and_tables_are_written_as_in_a_file(key: str, value: str, found: str) -> None:
    """By a flag and by a variable."""
    section, name = key.split(".")
    variable = {f"CACHEPROXY_{section}__{name}".upper(): value}

    for config in (load({key: value}, _HOME), load({}, variable | _HOME)):
        assert str(getattr(getattr(config, section), name)) == found


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cacheproxy", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_shown_is_a_file_that_gives_it(tmp_path: Path) -> None:
    """`config show` prints what `--config` takes."""
    shown = _run("config", "show", "--workers=3", CACHEPROXY_LIMITS__BLOB_BYTES="1GiB").stdout
    file = _file(tmp_path, shown)

    assert _run("config", "show", "--config", file).stdout == shown
    assert "workers: 3" in shown
    assert _run("config", "check", "--config", file).returncode == 0


def _fails_in_one_line(*arguments: str, saying: str) -> None:
    found = _run(*arguments)

    assert found.returncode != 0
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1, found.stderr
    assert saying in found.stderr


def test_a_taken_port_is_told(server: Server, tmp_path: Path) -> None:
    """With one worker and with several."""
    for workers in ("1", "2"):
        _fails_in_one_line(
            *("serve", "--listen", server.host, "--workers", workers),
            *("--storage", f"file://{tmp_path}/other"),
            saying=server.host,
        )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_of_metrics_is_told(server: Server, tmp_path: Path, workers: str) -> None:
    """Before anything is served."""
    _fails_in_one_line(
        *("serve", "--listen=127.0.0.1:0", "--metrics-listen", server.host),
        *("--workers", workers, "--storage", f"file://{tmp_path}/other"),
        saying=f"metrics.listen: cannot listen on {server.host}",
    )


def test_a_port_for_both_clients_and_metrics_is_told(tmp_path: Path) -> None:
    """Each has one of its own, or they are together."""
    with closing(Port()) as port:
        _fails_in_one_line(
            *("serve", "--listen", port.host, "--metrics-listen", port.host),
            *("--storage", f"file://{tmp_path}"),
            saying=f"metrics.listen: cannot listen on {port.host}",
        )


def test_a_folder_in_use_is_told(server: Server) -> None:
    """The second server of a folder does not start."""
    _fails_in_one_line(
        *("serve", "--listen=127.0.0.1:0", "--storage", f"file://{server.data}"),
        saying="in use by another cacheproxy",
    )


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where a folder belongs stops root too."""
    (tmp_path / "file").touch()
    _fails_in_one_line(
        *("serve", "--listen=127.0.0.1:0", "--storage", f"file://{tmp_path}/file/data"),
        saying=f"{tmp_path}/file",
    )


def test_a_folder_of_another_layout_is_told(tmp_path: Path) -> None:
    """What a later version wrote is not touched."""
    (tmp_path / "format").write_text("99")
    _fails_in_one_line(
        *("serve", "--listen=127.0.0.1:0", "--storage", f"file://{tmp_path}"), saying="99"
    )


@pytest.mark.parametrize("url", ["ftp://x", "file:///", "relative", "file://host/x"])
def test_a_storage_that_is_none_is_told(url: str) -> None:
    """Only a folder of this machine can be served from."""
    _fails_in_one_line("serve", "--listen=127.0.0.1:0", "--storage", url, saying="storage.url")


@pytest.mark.parametrize("setting", ["server.listen", "metrics.listen"])
@pytest.mark.parametrize("listen", ["x", "127.0.0.1:99999", "203.0.113.1:5000"])
def test_an_address_that_is_none_is_told(setting: str, listen: str, tmp_path: Path) -> None:
    """Not an address, not a port, not this machine's."""
    other = () if setting == "server.listen" else ("--listen=127.0.0.1:0",)
    flag = f"--{setting.replace('.', '-')}"
    _fails_in_one_line(
        *("serve", flag, listen, *other, "--storage", f"file://{tmp_path}"), saying=f"{setting}: "
    )
