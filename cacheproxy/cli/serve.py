"""`cacheproxy serve`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import click

from cacheproxy import __version__
from cacheproxy.allocator import keep_freed_memory
from cacheproxy.cli.options import loaded, with_settings
from cacheproxy.cli.visiting import place_of
from cacheproxy.config import file_of
from cacheproxy.listening import Listeners, is_loopback
from cacheproxy.settings import Config
from cacheproxy.workers import Workers


@click.command()
@with_settings()
def serve(file: str | None, **flags: Any) -> None:
    """Serve the registry."""
    from cacheproxy.security import Security

    keep_freed_memory()
    config = loaded(file, flags)
    security = Security(config, partial(loaded, file, flags), file or file_of())
    storage = place_of(config)
    with storage.claimed(config.server.workers):

        def run(listeners: Listeners) -> None:
            # Imported by whoever serves: a parent of workers must not import prometheus_client.
            from cacheproxy.app import run as serve_on
            from cacheproxy.logs import configure_logging, on_terminal

            configure_logging(config.log.level, terminal=on_terminal())
            asyncio.run(serve_on(config, storage, listeners, security))

        listen, metrics = config.server.listen, config.metrics.listen
        if config.server.workers == 1:
            with closing(Listeners.bound(listen, metrics)) as listeners:
                _greet(listeners, config)
                run(listeners)
        else:
            workers = Workers(listen, metrics, config.server.workers, run)
            _greet(workers.listeners, config)
            workers.run()


def warnings(config: Config) -> Iterator[str]:
    """What can be meant, and is more often a mistake."""
    auth = config.auth
    if not auth.on and not is_loopback(config.server.listen):
        yield f"cacheproxy listens on {config.server.listen} WITHOUT ACCESS CONTROL."
        yield "Everybody who reaches it may pull, push and delete everything."
        yield "Set auth.htpasswd_file and auth.rules, or listen on 127.0.0.1 only."
    if auth.on and not auth.rules:
        yield "auth.rules is empty: nobody may do anything."
    if auth.on and not auth.signing_key_file and config.storage.url.startswith("s3:"):
        yield "auth.signing_key_file is not set: no other replica takes the tokens of this one."


def _greet(listeners: Listeners, config: Config) -> None:
    """Tell a person at a terminal what to do next, and everybody what is dangerous."""
    for line in warnings(config):
        click.secho(f"WARNING: {line}", err=True, fg="red", bold=True)
    if not os.isatty(sys.stdout.fileno()):
        return
    scheme = "https" if config.server.tls_cert_file else "http"
    address, metrics = listeners.address, listeners.metrics_address
    host = address.replace("127.0.0.1", "localhost").replace("0.0.0.0", "localhost")
    ref = f"type=registry,ref={host}/ci/app:cache"
    apart = f"  metrics on   http://{metrics}/metrics, for whoever reaches it\n" if metrics else ""
    click.echo(
        f"cacheproxy {__version__}\n"
        f"  listens on   {scheme}://{address}\n"
        f"{apart}"
        f"  stores in    {config.storage.url}\n"
        f"  try          docker buildx build --cache-to {ref},mode=max --cache-from {ref} .\n"
    )
