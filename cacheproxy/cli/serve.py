"""`cacheproxy serve`."""

import asyncio
import os
import socket
import sys
from contextlib import closing
from typing import Any

import click

from cacheproxy import __version__
from cacheproxy.cli.options import loaded, with_settings
from cacheproxy.cli.visiting import place_of
from cacheproxy.config import Config
from cacheproxy.listening import address_of, bind
from cacheproxy.workers import Workers


@click.command()
@with_settings()
def serve(file: str | None, **flags: Any) -> None:
    """Serve the registry."""
    config = loaded(file, flags)
    storage = place_of(config)
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
