"""Conditions that are kept here, for a bucket that ignores them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import pytest

from cacheproxy.errors import Unavailable
from cacheproxy.storage.s3 import conditions
from cacheproxy.storage.s3.conditions import Conditions

_OTHER = """
import asyncio, sys
from cacheproxy.storage.s3.conditions import Conditions

async def other():
    async with Conditions(int(sys.argv[1])).alone("key"):
        print("inside", flush=True)
        sys.stdin.read()

asyncio.run(other())
"""


async def test_tasks_of_a_process_are_alone_one_after_the_other() -> None:
    """Whoever writes to the same key."""
    kept, inside = Conditions(), 0

    async def write() -> None:
        nonlocal inside
        async with kept.alone("key"):
            inside += 1
            await asyncio.sleep(0)
            assert inside == 1
            inside -= 1

    await asyncio.gather(*[write() for _ in range(3)])


async def test_processes_that_share_the_file_are_alone_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for too long is told; one that dies leaves its place."""
    with TemporaryFile() as file, _inside(file.fileno()) as other:
        kept = Conditions(file.fileno())
        with monkeypatch.context() as patch:
            patch.setattr(conditions, "_PATIENCE_SECONDS", 0.0)
            with pytest.raises(Unavailable):
                async with kept.alone("key"):
                    pass
        other.kill()
        async with kept.alone("key"):
            pass


@contextmanager
def _inside(descriptor: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that shares the file, and is alone."""
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(descriptor)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[descriptor],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"inside\n"
        yield process
