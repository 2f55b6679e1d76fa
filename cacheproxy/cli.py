"""The commands. Every mistake of a user ends here as one line and a non-zero exit."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import click

from cacheproxy import __version__
from cacheproxy.config import S3, Config, ConfigError, as_yaml, load, settings
from cacheproxy.errors import RegistryError, StorageInvalid
from cacheproxy.listening import PortTaken, address_of, bind
from cacheproxy.storage.folder import FolderInUse
from cacheproxy.storage.opening import place
from cacheproxy.storage.s3.options import S3Options
from cacheproxy.workers import Workers

_SHORT = {
    "server.listen": ["--listen"],
    "server.workers": ["--workers"],
    "storage.url": ["--storage"],
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting, and `--config`."""
    for setting in reversed(list(settings())):
        names = [*_SHORT.get(setting.key, ()), setting.flag]
        told = f"{setting.help} [{setting.told_default}]"
        command = click.option(*names, setting.key.replace(".", "__"), help=told)(command)
    return click.option("--config", "file", help="A YAML file with settings.")(command)


def _load(file: str | None, flags: dict[str, Any]) -> Config:
    given = {key.replace("__", "."): value for key, value in flags.items() if value is not None}
    return load(given, file=file)


@click.group()
@click.version_option(__version__, prog_name="cacheproxy")
def cli() -> None:
    """The registry that understands BuildKit caches."""


@cli.command()
@with_settings
def serve(file: str | None, **flags: Any) -> None:
    """Serve the registry."""
    config = _load(file, flags)
    storage = place(config.storage.url, s3_options(config.s3))
    with storage.claimed(config.server.workers):

        def run(listener: socket.socket) -> None:
            # Imported by whoever serves: a parent of workers must not import prometheus_client.
            from cacheproxy.app import run as serve_on
            from cacheproxy.telemetry import configure_logging, on_terminal

            configure_logging(config.log.level, on_terminal())
            asyncio.run(serve_on(config, storage, listener))

        if config.server.workers == 1:
            with closing(bind(config.server.listen)) as listener:
                _greet(address_of(listener), config)
                run(listener)
        else:
            workers = Workers(config.server.listen, config.server.workers, run)
            _greet(workers.address, config)
            workers.run()


def s3_options(config: S3) -> S3Options:
    """The settings of S3; which bucket is told by the URL of the storage."""
    return S3Options(
        bucket="",
        endpoint_url=config.endpoint_url or None,
        region=config.region or None,
        path_style=config.path_style,
        ca_file=config.ca_file or None,
        sse=config.sse or None,
        kms_key_id=config.sse_kms_key_id or None,
        storage_class=config.storage_class or None,
        checksums=config.checksums,
        part_bytes=config.part_bytes,
        copy_bytes=config.copy_bytes,
        public_endpoint_url=config.public_endpoint_url or None,
    )


@cli.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@with_settings
def show(file: str | None, **flags: Any) -> None:
    """Print the settings in force as a YAML file."""
    click.echo(as_yaml(_load(file, flags)), nl=False)


@config.command()
@with_settings
def check(file: str | None, **flags: Any) -> None:
    """Say whether the settings can be used."""
    _load(file, flags)
    click.echo("the settings are valid")


def _greet(address: str, config: Config) -> None:
    """Tell a person at a terminal what to do next."""
    if not os.isatty(sys.stdout.fileno()):
        return
    host = address.replace("127.0.0.1", "localhost").replace("0.0.0.0", "localhost")
    ref = f"type=registry,ref={host}/ci/app:cache"
    click.echo(
        f"cacheproxy {__version__}\n"
        f"  listens on   http://{address}\n"
        f"  stores in    {config.storage.url}\n"
        f"  try          docker buildx build --cache-to {ref},mode=max --cache-from {ref} .\n"
    )


def run() -> int:
    """Run the command line; the exit status."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Abort:
        return 130
    except (ConfigError, FolderInUse, PortTaken) as error:
        return _fail(str(error))
    except StorageInvalid as error:
        return _fail(f"storage.url: {error}")
    except RegistryError as error:
        cause = error.__cause__
        return _fail(f"storage.url: {error.detail}{f': {cause}' if cause else ''}")
    return 0


def _fail(problem: str) -> int:
    click.echo(f"cacheproxy: {problem}", err=True)
    return 1
