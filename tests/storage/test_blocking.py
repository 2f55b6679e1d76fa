"""Blocking calls and cancellation."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from cacheproxy.errors import Conflict, StorageFull, Unavailable
from cacheproxy.storage.blocking import in_thread, os_errors


async def test_call_in_a_thread_gives_what_it_gives() -> None:
    """Its result and its error are the caller's."""
    assert await in_thread(int, "11", base=2) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
async def test_cancelled_caller_waits_for_its_call(fails: bool) -> None:
    """However often it is cancelled, it goes on only when the call has ended, good or bad."""
    started, go = threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        go.wait(10)
        if fails:
            raise OSError

    caller = asyncio.create_task(in_thread(call))
    await asyncio.to_thread(started.wait, 10)
    for _ in range(3):
        caller.cancel()
        finished, _ = await asyncio.wait([caller], timeout=0.01)
        assert not finished
    go.set()

    with pytest.raises(asyncio.CancelledError):
        await caller


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_errors_of_a_full_disk_are_storage_full(number: int) -> None:
    """A quota and a limit of the file system are as full as a disk."""
    with pytest.raises(StorageFull), os_errors:
        raise OSError(number, "full")


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_other_errors_are_unavailable_and_keep_their_cause(number: int) -> None:
    """The client is not told what only the log should say."""
    with pytest.raises(Unavailable) as told, os_errors:
        raise OSError(number, "/a/path/of/ours")

    assert "/a/path" not in str(told.value)
    assert isinstance(told.value.__cause__, OSError)


def test_errors_that_are_not_of_the_system_pass() -> None:
    """A conflict is an answer."""
    with pytest.raises(Conflict), os_errors:
        raise Conflict
