"""What commands have in common on the command line."""

from collections.abc import Callable
from typing import Any

import click

from cacheproxy.config import load
from cacheproxy.errors import ManifestInvalid, NameInvalid
from cacheproxy.oci.reference import Repository, Tag
from cacheproxy.settings import Bytes, Config, settings

_SHORT = {
    "server.listen": ["--listen"],
    "server.workers": ["--workers"],
    "storage.url": ["--storage"],
}

_Command = Callable[..., Any]


def with_settings(*sections: str) -> Callable[[_Command], _Command]:
    """Give a command `--config`, and a flag for every setting of these sections, or of all."""

    def decorate(command: _Command) -> _Command:
        for setting in reversed(settings()):
            if sections and setting.section not in sections:
                continue
            names = [*_SHORT.get(setting.key, ()), setting.flag]
            told = f"{setting.help} [{setting.told_default}]"
            command = click.option(*names, setting.key.replace(".", "__"), help=told)(command)
        return click.option("--config", "file", help="A YAML file with settings.")(command)

    return decorate


on_bucket = with_settings("storage", "s3", "cache")
"""For commands on the configured bucket, beside running servers."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def loaded(file: str | None, flags: dict[str, Any]) -> Config:
    """The settings, given what `with_settings` has added to a command."""
    given = {key.replace("__", "."): value for key, value in flags.items() if value is not None}
    return load(given, file=file)


def parse_ref(text: str) -> tuple[Repository, Tag]:
    """`repository:tag`."""
    repository, colon, tag = text.rpartition(":")
    if not colon or "@" in text:
        raise click.ClickException(f"{text!r} is not repository:tag")
    try:
        return Repository.parse(repository), Tag.parse(tag)
    except (NameInvalid, ManifestInvalid) as error:
        raise click.ClickException(error.detail) from None


def parse_size(ctx: click.Context, param: click.Parameter, text: str) -> Bytes:
    """A number of bytes above 0, with or without a unit."""
    try:
        size = Bytes.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    if size < 1:
        raise click.BadParameter("it must be at least 1", ctx, param)
    return size
