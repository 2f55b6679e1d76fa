"""Where settings come from, and how they are handed down to another process.

A setting is given, in order of precedence, by the flag, by the environment variable, by the YAML
file, or by its default. Anything that looks like a setting and is none is an error that names the
nearest one.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, get_type_hints

import msgspec
import yaml

from cacheproxy.settings import PREFIX, Bytes, Config, ConfigError, Network, settings

_SHARED_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"


def load(
    flags: Mapping[str, str], environment: Mapping[str, str] | None = None, file: str | None = None
) -> Config:
    """Put the settings together; `flags` are by key, and the YAML `file` may be absent.

    Raises:
        ConfigError: a name is unknown, or a value is not what the setting takes.
    """
    if environment is None:
        environment = os.environ
    file = file or file_of(environment)
    tree: dict[str, dict[str, Any]] = {}
    for key, value in (*_from_file(file), *_from_environment(environment), *flags.items()):
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = _unfolded(value) if key in _folded() else value
    try:
        config = msgspec.convert(tree, Config, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_told(str(error))) from None
    return _with_folders(config, environment)


def file_of(environment: Mapping[str, str] | None = None) -> str | None:
    """The YAML file that the environment names."""
    return (os.environ if environment is None else environment).get(PREFIX + "CONFIG")


@cache
def _folded() -> frozenset[str]:
    """Settings that are lists or tables; others may begin with a bracket, as `[::]:5000` does."""
    return frozenset(each.key for each in settings() if isinstance(each.default, tuple | dict))


def _unfolded(value: Any) -> Any:
    """A list or table that a flag or variable gives is written as in a file."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{value!r} is neither list nor table: {error}") from None
    return value


def with_shared_metrics(folder: str) -> None:
    """Make prometheus_client, when it is imported after this, keep its values in `folder`."""
    os.environ[_SHARED_METRICS] = folder


def shared_metrics() -> str | None:
    """The folder of `with_shared_metrics`, in a process that was made after it."""
    return os.environ.get(_SHARED_METRICS)


def foreign_environment() -> dict[str, str]:
    """The environment without what is ours, for a process that has its settings by `as_yaml`."""
    ours = (PREFIX, _SHARED_METRICS)
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def as_yaml(config: Config) -> str:
    """The settings as a file that gives them."""
    tree = msgspec.to_builtins(config, enc_hook=_encode)
    return yaml.safe_dump(tree, sort_keys=False)


def handed_down(path: str | None) -> Config:
    """What `as_yaml` has written to a file, all of it, and nothing else.

    Raises:
        ConfigError: something is missing, or is not what the setting takes.
    """
    given = dict(_from_file(path))
    if missing := [each.key for each in settings() if each.key not in given]:
        raise ConfigError(f"the server has not handed down all of its settings: no {missing[0]}")
    return load(given, {})


def _from_file(path: str | None) -> Iterator[tuple[str, Any]]:
    if path is None:
        return
    try:
        with open(path, encoding="utf-8") as file:
            tree = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(tree, dict | None):
        raise ConfigError(f"{path} holds no settings")
    for section, values in (tree or {}).items():
        if values is None and section in get_type_hints(Config):
            continue
        if not isinstance(values, dict):
            raise ConfigError(_unknown(str(section), f"in {path}"))
        for name, value in values.items():
            yield _known(f"{section}.{name}", f"in {path}"), value


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables without `__` are not ours: Kubernetes sets CACHEPROXY_PORT for a service."""
    for variable, value in environment.items():
        if variable.startswith(PREFIX) and "__" in variable:
            section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
            yield _known(f"{section}.{name}", f"(variable {variable})"), value


def _known(key: str, where: str) -> str:
    if any(key == setting.key for setting in settings()):
        return key
    raise ConfigError(_unknown(key, where))


def _unknown(key: str, where: str) -> str:
    keys = [setting.key for setting in settings()]
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.0)[0]
    return f"there is no setting {key} {where}; did you mean {nearest}?"


def _decode(kind: type, value: Any) -> Any:
    if kind is Network:
        return Network.parse(str(value))
    if kind is not Bytes:
        raise NotImplementedError(f"settings of type {kind}")
    return Bytes.parse(str(value))


def _encode(value: Any) -> int | str:
    return int(value) if isinstance(value, Bytes) else str(value)


def _told(problem: str) -> str:
    """`Expected X - at `$.server.workers`` as `server.workers: expected X`."""
    text, _, place = problem.partition(" - at ")
    return f"{place.strip('`').removeprefix('$.')}: {text[:1].lower()}{text[1:]}"


def _with_folders(config: Config, environment: Mapping[str, str]) -> Config:
    home = environment.get("HOME", os.path.expanduser("~"))
    if not config.storage.url:
        data = environment.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
        url = "file://" + os.path.join(data, "cacheproxy")
        storage = msgspec.structs.replace(config.storage, url=url)
        config = msgspec.structs.replace(config, storage=storage)
    if not config.tier.folder:
        cache = environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
        folder = os.path.join(cache, "cacheproxy")
        tier = msgspec.structs.replace(config.tier, folder=folder)
        config = msgspec.structs.replace(config, tier=tier)
    return config
