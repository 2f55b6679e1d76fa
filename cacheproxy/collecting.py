"""Collection beside a server: each cycle is a process of its own.

In the server's own process it would take turns with requests for Python's lock, which they would
see in their slowest hundredth at any pace. This one is the last to get a processor and the first to
go where memory runs out.

It is `cacheproxy gc`, with the settings of the server from a file that has no name, and with what
it has to say as one line on its standard output. Its standard input is a pipe that only the server
holds open, so that it ends with a server that was killed.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryFile
from typing import Final, Literal

import msgspec

from cacheproxy.collection.collector import Report
from cacheproxy.collection.turn import is_free
from cacheproxy.config import as_yaml, foreign_environment
from cacheproxy.errors import Unavailable
from cacheproxy.settings import Config
from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.layout import Namespace

_NICEST: Final = 19
_DISPENSABLE: Final = "1000"
_LINE_BYTES: Final = 64 << 10
_END_SECONDS: Final = 5.0

# The same code as here, installed or not. Whatever else lies beside it, or in the working folder,
# is not to be imported.
_PLACE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PROGRAM: Final = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from cacheproxy.__main__ import main
del sys.path[0]
main()
"""

Task = Literal["cycle", "finish"]


class Outcome(msgspec.Struct, frozen=True):
    """What a collector tells the server that has started it."""

    report: Report | None = None
    """None: there was no cycle, for it was another one's turn."""
    problem: str = ""
    """Why it could not be ended."""


class Collecting:
    """What a server that has these settings collects in a namespace. `conditions` is a descriptor
    that its processes must inherit, see `Place`."""

    def __init__(
        self, config: Config, bucket: Bucket, namespace: Namespace, conditions: int | None = None
    ) -> None:
        self._settings = as_yaml(config).encode()
        self._interval = config.collection.interval_seconds
        self._bucket = bucket
        self._namespace = namespace
        self._conditions = conditions

    async def collect(self) -> Report | None:
        """One cycle, and what it did; None: none is due, or another collector is at work.

        Raises:
            Unavailable: it could not be ended, and can be tried again.
        """
        return await self._run("cycle", self._interval)

    async def finish(self) -> None:
        """Go on with what is doomed, unless a collector is at work. Raises as `collect`."""
        await self._run("finish", 0.0)

    async def _run(self, task: Task, rest: float) -> Report | None:
        if not await is_free(self._bucket, self._namespace.collector(), rest):
            return None
        async with self._started(task) as process:
            outcome = await _outcome(process)
        if outcome.problem:
            raise Unavailable(outcome.problem)
        return outcome.report

    @asynccontextmanager
    async def _started(self, task: Task) -> AsyncIterator[Process]:
        """A collector; none is left on exit."""
        try:
            process = await self._start(task)
        except OSError as error:
            raise Unavailable(f"the collector cannot be started: {error}") from error
        try:
            _give_way(process.pid)
            yield process
        finally:
            await _end(process)

    async def _start(self, task: Task) -> Process:
        command = [sys.executable, "-P", "-c", _PROGRAM, _PLACE, "gc", f"--for-server={task}"]
        command.append(f"--namespace={self._namespace.name}")
        with TemporaryFile() as file:
            file.write(self._settings)
            file.seek(0)  # where /dev/fd is a duplicate, it is read from here on
            inherited = [file.fileno()]
            command.append(f"--config=/dev/fd/{file.fileno()}")
            if self._conditions is not None:
                inherited.append(self._conditions)
                command.append(f"--conditions={self._conditions}")
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                env=foreign_environment(),
                pass_fds=inherited,
                limit=_LINE_BYTES,
            )


async def _outcome(process: Process) -> Outcome:
    """Raises Unavailable: it has ended without a word."""
    assert process.stdout is not None
    try:
        return msgspec.json.decode(await process.stdout.readline(), type=Outcome)
    except ValueError:  # what is no JSON, or too long a line
        await _end(process)
        status = process.returncode
        raise Unavailable(f"the collector has ended with the status {status}") from None


def _give_way(pid: int) -> None:
    """Let everything else go first."""
    with suppress(OSError):  # it has ended, or this is no Linux
        os.setpriority(os.PRIO_PROCESS, pid, _NICEST)
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(_DISPENSABLE)


async def _end(process: Process) -> None:
    """Have it end: by itself if it has said all, else it is told to, and has some seconds."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
