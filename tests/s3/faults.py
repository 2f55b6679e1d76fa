"""Which calls to S3 go wrong, and how."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tests.s3.calls import Call, Kind


class What(enum.Enum):
    """What happens to a call."""

    REFUSE = enum.auto()
    """The connection is reset; S3 never hears of the call."""
    RESET = enum.auto()
    """S3 executes the call, and the connection is reset instead of an answer."""
    STALL = enum.auto()
    """No answer, until `release` passes the call on; S3 never hears of it before."""
    STALL_BODY = enum.auto()
    """Nothing after `at` bytes of the answer's body, until `release` breaks the connection."""
    ERROR = enum.auto()
    """500 InternalError; S3 never hears of the call."""
    SLOW_DOWN = enum.auto()
    """503 SlowDown; S3 never hears of the call."""
    CUT = enum.auto()
    """The connection breaks after `at` bytes of the answer's body; the headers tell its length."""
    TRUNCATED = enum.auto()
    """The answer's body ends after `at` bytes, and the headers say that this is its length."""
    WRONG = enum.auto()
    """The byte `at` of the answer's body is another one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule: `what` happens to the `occurrence`-th call of this operation on this kind of key.

    The calls are counted from when the rule is added, whatever the order of others between them.
    """

    operation: str | None
    """None is any."""
    kind: Kind | None
    """None is any."""
    occurrence: int
    """The first is 1."""
    what: What
    at: int = 0
    times: int | None = 1
    """How many calls in a row; None is all from then on."""

    def matches(self, call: Call) -> bool:
        return self.operation in (None, call.operation) and self.kind in (None, call.kind)

    def covers(self, occurrence: int) -> bool:
        behind = occurrence - self.occurrence
        return behind >= 0 and (self.times is None or behind < self.times)

    def spoil(self, chunk: bytes, offset: int) -> bytes:
        """What goes out of `chunk`, which begins at `offset` of an answer's body."""
        here = self.at - offset
        if self.what is What.WRONG and 0 <= here < len(chunk):
            return chunk[:here] + bytes((chunk[here] ^ 0xFF,)) + chunk[here + 1 :]
        if self.what in (What.CUT, What.TRUNCATED, What.STALL_BODY):
            return chunk[: max(here, 0)]
        return chunk


class Faults:
    """The rules of a proxy."""

    def __init__(self) -> None:
        self.fired: list[Fault] = []
        """The rules that have taken effect, once for each call."""
        self._rules: list[tuple[Fault, list[Call]]] = []

    def add(self, fault: Fault) -> None:
        self._rules.append((fault, []))

    def clear(self) -> None:
        self._rules.clear()
        self.fired.clear()

    def choose(self, call: Call) -> Fault | None:
        """The fault of `call`: the first rule wins, all rules count."""
        chosen = None
        for fault, matched in self._rules:
            if not fault.matches(call):
                continue
            matched.append(call)
            if chosen is None and fault.covers(len(matched)):
                chosen = fault
        if chosen is not None:
            self.fired.append(chosen)
        return chosen
