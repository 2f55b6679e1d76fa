"""`cacheproxy gc` as a server starts it, see `collecting.py`: paced, and ended with the server."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import click
import msgspec

from cacheproxy.cli.visiting import place_of
from cacheproxy.errors import RegistryError, StorageInvalid
from cacheproxy.settings import Config
from cacheproxy.storage.bucket import Bucket

if TYPE_CHECKING:
    from cacheproxy.collecting import Outcome

_END_SECONDS: Final = 10.0
_ENDED: Final = 130

Work = Callable[[Bucket], Awaitable["Outcome"]]


def work_for_server(config: Config, conditions: int | None, work: Work) -> int:
    """Do `work` with the bucket, tell the server what came of it, and return the exit status."""
    from cacheproxy.logs import configure_logging

    threading.Thread(target=_end_with_server, daemon=True).start()
    configure_logging(config.log.level, to=sys.stderr)
    try:
        outcome = asyncio.run(_done(config, conditions, work))
    except KeyboardInterrupt:
        return _ENDED
    click.echo(msgspec.json.encode(outcome))
    return 0


async def _done(config: Config, conditions: int | None, work: Work) -> "Outcome":
    from cacheproxy.collecting import Outcome

    loop = asyncio.get_running_loop()
    # Ended as from a keyboard, it leaves its turn to the next one.
    loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    try:
        async with place_of(config).joined(conditions) as bucket:
            return await work(bucket)
    except (RegistryError, StorageInvalid) as error:
        cause = error.__cause__
        return Outcome(problem=f"{error}{f': {cause}' if cause else ''}")


def _end_with_server() -> None:
    """Whatever is under way: nobody is there to be told of it."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    os._exit(_ENDED)
