"""A stage: operations of processes that share a bucket, and that go on only when they are told to.

Each call to the bucket waits twice, before its effect and after it; so does each sleep. Nothing is
left to threads or to the clock, so what happens is what the test says.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from cacheproxy.collection.collector import Collector
from cacheproxy.collection.retention import Policies
from cacheproxy.content.contents import Contents
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.errors import RegistryError, Unavailable
from cacheproxy.registry.registry import Registry
from cacheproxy.registry.tags import Tags
from cacheproxy.storage.layout import Namespace
from tests.collection.rooms import LEASE, Time
from tests.memory import MemoryBucket
from tests.registry.rooms import TICKETS

T = TypeVar("T")

_KEEP = Policies()
_ENDLESS = 5000


@dataclass(eq=False)
class Process:
    """A machine of its own, as far as clocks go. What is `blind` cannot list the batches."""

    name: str
    blind: bool = False
    dead: bool = False
    asleep: float = 0.0
    """For how many seconds the machine has slept: its monotonic clock stood still then."""


@dataclass(eq=False)
class Call:
    """What an operation waits for: `name` of a call of the bucket, that with `after ` when it has
    had its effect, `sleep` until a time, or a word of the test's."""

    name: str
    key: str
    future: asyncio.Future[None]
    until: float = 0.0


@dataclass(eq=False)
class Operation:
    """Something that a process does; `result` or `error` is there when it has ended."""

    process: Process
    name: str
    waiting: list[Call] = field(default_factory=list)
    task: asyncio.Task[Any] | None = None

    @property
    def ended(self) -> bool:
        return self.task is not None and self.task.done()

    @property
    def result(self) -> Any:
        """Raises what the operation has raised."""
        assert self.task is not None
        return self.task.result()

    @property
    def error(self) -> BaseException | None:
        assert self.task is not None
        return self.task.exception()


_operation: ContextVar[Operation] = ContextVar("operation")


class _Loop(asyncio.SelectorEventLoop):
    """Where threads are needed, their work is done at once."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    @property
    def is_quiet(self) -> bool:
        return not self._ready  # type: ignore[attr-defined]


class Stage:
    """Use as a context. `on_step` is called after each step of any operation."""

    def __init__(self, folder: Path) -> None:
        self.time = Time()
        self.bucket = MemoryBucket(self.time)
        self.bucket.step = self._step
        self.namespace = Namespace()
        self.operations: list[Operation] = []
        self.on_step: Callable[[], None] = lambda: None
        self._contents = Contents(self.bucket, SpoolFolder(str(folder)))
        self._loop = _Loop()
        self._random = random.Random(0)
        self._names = patch("uuid.uuid4", self._name)  # batches are listed in the order of theirs
        self._names.start()
        self._closing = False
        self._dead: list[Operation] = []  # which Python would close otherwise, and so go on with

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._names.stop()
        self._closing = True
        self._loop.set_exception_handler(lambda loop, context: None)
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._quiet()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def registry(self, process: Process, contents: Contents | None = None) -> Registry:
        """One that knows nothing yet."""
        clocks = (lambda: self.time.now - process.asleep, self.time)
        return Registry(
            self.bucket,
            self.namespace,
            contents or self._contents,
            TICKETS,
            clock=self.time.nanoseconds,
            clocks=clocks,
            sleep=self.sleep,
        )

    def replica(self, name: str = "replica", contents: Contents | None = None) -> Replica:
        """One that has just started."""
        process = Process(name)
        replica = Replica(self, process, self.registry(process, contents))
        self.do(replica.start(replica.registry.condemned.poll()))
        return replica

    def collector(self, policies: Policies = _KEEP) -> Collector:
        return Collector(
            self.bucket,
            self.namespace,
            Tags(self.bucket, self.namespace, self.time.nanoseconds),
            policies,
            LEASE,
            clock=self.time.nanoseconds,
            sleep=self.sleep,
        )

    def start(self, process: Process, work: Coroutine[Any, Any, Any], name: str = "") -> Operation:
        """Let a process do something, up to where that first waits."""
        operation = Operation(process, name or str(getattr(work, "__qualname__", "")))
        context = copy_context()
        context.run(_operation.set, operation)
        operation.task = self._loop.create_task(work, context=context)
        self.operations.append(operation)
        self._went_on()
        return operation

    def cycle(self, process: Process | None = None, policies: Policies = _KEEP) -> Operation:
        """Begin a cycle of a collector of its own."""
        work = self.collector(policies).collect()
        return self.start(process or Process("collector"), work, "cycle")

    def go_on(self, operation: Operation, which: int = 0) -> Call | None:
        """Let go one of the calls for which it waits; sleeps last, for which time passes."""
        calls = [call for call in operation.waiting if call.name != "sleep"]
        if calls:
            call = calls[which % len(calls)]
        elif operation.waiting:
            call = min(operation.waiting, key=lambda call: call.until)
            self.time.now = max(self.time.now, call.until)
        else:
            return None
        operation.waiting.remove(call)
        call.future.set_result(None)
        self._went_on()
        return call

    def run(self, operation: Operation, until: str = "", key: str = "") -> bool:
        """Go on to its end, or to where it waits for a call `until` with `key` in its key, and for
        nothing else; whether that was reached."""
        for _ in range(_ENDLESS):
            found = [
                call
                for call in operation.waiting
                if until and call.name == until and key in call.key
            ]
            if found and len(found) == len(operation.waiting):
                return True
            others = [call for call in operation.waiting if call not in found]
            if not others:
                return bool(found)
            if found:
                operation.waiting = others
            self.go_on(operation)
            if found:
                operation.waiting += found
        raise AssertionError(f"{operation.name} does not end")

    def do(self, operation: Operation) -> Any:
        """Go on to the end; what comes of it."""
        self.run(operation)
        return operation.result

    def kill(self, process: Process) -> list[tuple[Operation, Call]]:
        """End the process here. What it had sent is returned; it may still arrive."""
        process.dead = True
        mine = [each for each in self.operations if each.process is process]
        self.operations = [each for each in self.operations if each.process is not process]
        self._dead += mine
        return [
            (each, call)
            for each in mine
            for call in each.waiting
            if call.name in ("put", "delete", "deletion", "join")
        ]

    def arrive(self, sent: tuple[Operation, Call]) -> None:
        """Let what a dead process has sent have its effect; it does nothing more."""
        operation, call = sent
        if call in operation.waiting:
            operation.waiting.remove(call)
            call.future.set_result(None)
            self._went_on()

    async def pause(self, word: str, key: str = "", until: float = 0.0) -> None:
        """Wait to be told to go on."""
        operation = _operation.get(None)
        if self._closing or operation is None:
            return
        call = Call(word, key, self._loop.create_future(), until)
        operation.waiting.append(call)
        try:
            await call.future
        finally:
            if call in operation.waiting:  # it is cancelled
                operation.waiting.remove(call)

    async def sleep(self, seconds: float) -> None:
        await self.pause("sleep", until=self.time.now + seconds)

    def _name(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128))

    async def _step(self, call: str, key: str) -> None:
        operation = _operation.get(None)
        if operation is not None and operation.process.blind and key == self.namespace.batches():
            raise Unavailable("the batches cannot be listed")
        await self.pause(call, key)

    def _went_on(self) -> None:
        self._quiet()
        for each in self.operations:
            if each.ended and each.error is not None and not isinstance(each.error, RegistryError):
                raise each.error
        self.operations = [each for each in self.operations if not each.ended]
        self.on_step()

    def _quiet(self) -> None:
        while not self._loop.is_quiet:
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()


@dataclass(eq=False)
class Replica:
    stage: Stage
    process: Process
    registry: Registry

    def start(self, work: Coroutine[Any, Any, Any], name: str = "") -> Operation:
        return self.stage.start(self.process, work, name)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it without interruption."""
        result: T = self.stage.do(self.start(work))
        return result

    def poll(self) -> None:
        self.do(self.registry.condemned.poll())
