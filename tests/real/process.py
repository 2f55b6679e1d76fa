"""Other programs' processes: found, run, started, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from tests import components

T = TypeVar("T")

_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 120
"""For what should take a second or two: only what hangs takes so long on a busy machine."""


class CommandError(Exception):
    """A program failed; the message holds all that it printed."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a finished program left."""

    status: int
    stdout: str
    stderr: str


def require(binary: str) -> Path:
    """Return where the program `binary` is, or skip the test that needs it.

    Where real components are obligatory, as in CI, the test fails instead.
    """
    path = components.find(binary)
    if path is None:
        _unavailable(f"{binary} is missing: run `python -m tests.components`")
    return path


def require_root() -> None:
    """Skip the test unless it runs as root; fail it where real components are obligatory."""
    if os.geteuid() != 0:
        _unavailable("needs root")


def run(command: Sequence[str], *, environment: Mapping[str, str], seconds: float) -> str:
    """Run `command` and return its standard output; raise `CommandError` when it fails."""
    output = attempt(command, environment=environment, seconds=seconds)
    if output.status != 0:
        said = output.stdout + output.stderr
        raise CommandError(f"{' '.join(command)}: exit status {output.status}\n{said}")
    return output.stdout


def attempt(command: Sequence[str], *, environment: Mapping[str, str], seconds: float) -> Output:
    """Run `command` to its end, be it good or bad.

    Raises `subprocess.TimeoutExpired` after `seconds`. Nothing that it started outlives the call.
    """
    with subprocess.Popen(
        _leashed(command),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        finally:
            _signal_group(process, signal.SIGKILL)
    return Output(process.returncode, stdout, stderr)


class Daemon:
    """A program in the background whose output goes to a log file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    @contextmanager
    def running(
        cls, command: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> Iterator[Daemon]:
        """Start `command`; at the end of the context ask it to stop, then kill what is left."""
        with (
            log.open("wb") as sink,
            subprocess.Popen(
                _leashed(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield cls(process, log)
            finally:
                _stop(process)

    @property
    def log(self) -> str:
        """All that the program has printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        """Signal the program itself, and none that it has started."""
        self._process.send_signal(number)

    def kill_all(self) -> None:
        """Kill the program and all that it has started, as a machine does that loses power."""
        _signal_group(self._process, signal.SIGKILL)

    def wait_for_end(self, *, seconds: float = _PATIENCE_SECONDS) -> int:
        """Return the exit status of the program when it has ended by itself."""
        return self._process.wait(timeout=seconds)

    def wait_for_log(self, pattern: str, *, seconds: float = _PATIENCE_SECONDS) -> re.Match[str]:
        """Return the first match of `pattern` in the log."""
        return self.wait_for(lambda: re.search(pattern, self.log), seconds=seconds)

    def wait_for(self, look: Callable[[], T | None], *, seconds: float = _PATIENCE_SECONDS) -> T:
        """Return what `look` finds, or raise `CommandError` with the log if it never does."""
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"{self._process.args!r} is not ready:\n{self.log}")
            time.sleep(_POLL_SECONDS)
        return found


def _leashed(command: Sequence[str]) -> list[str]:
    """Have the kernel end `command` should the test process die without cleaning up.

    pytest-timeout does die so. The leash is tied to the calling thread, as the kernel sees it.
    """
    return ["setpriv", "--pdeathsig", "TERM", "--", *command]


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.terminate()
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes] | subprocess.Popen[str], number: int) -> None:
    """Signal what is left of the process group that `process` leads."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CACHEPROXY_TESTS_REQUIRE_REAL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
