"""Blocking calls: off the event loop, and their errors in our words."""

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, ParamSpec, TypeVar

from cacheproxy.errors import StorageFull, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class _OsErrors:
    """Translates what the operating system raises inside; its own words stay in the log.

    An object and not a generator, because every look at a file goes through it.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _FULL:
            raise StorageFull("there is no room left in the storage folder") from error
        raise Unavailable("the storage folder cannot be used") from error


os_errors: Final = _OsErrors()


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a thread and wait for it, whatever happens to the waiter.

    A thread cannot be stopped, so a cancelled caller that went on would close files under a call
    that still uses them. Calls here take moments, so cancellation waits for them.
    """
    job = asyncio.get_running_loop().run_in_executor(None, partial(call, *args, **kwargs))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        while not job.done():
            try:
                await asyncio.wait([job])
            except asyncio.CancelledError:
                continue
        if not job.cancelled():
            job.exception()  # the cancellation is what the caller sees; this one is looked at
        raise
