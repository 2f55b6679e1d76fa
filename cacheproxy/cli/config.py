"""`cacheproxy config`."""

from typing import Any

import click

from cacheproxy.cli.options import loaded, with_settings
from cacheproxy.config import as_yaml


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@with_settings()
def show(file: str | None, **flags: Any) -> None:
    """Print the settings in force as a YAML file."""
    click.echo(as_yaml(loaded(file, flags)), nl=False)


@config.command()
@with_settings()
def check(file: str | None, **flags: Any) -> None:
    """Say whether the settings can be used, and the files that they name."""
    from cacheproxy.security import Security

    settings = loaded(file, flags)
    Security(settings, lambda: settings, None)
    click.echo("the settings are valid")
