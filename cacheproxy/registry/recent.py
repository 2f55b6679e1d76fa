"""What was looked up lately and need not be looked up again."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values that are trusted for some seconds, as many as weigh at most `capacity` together.

    What was not asked for longest goes first. `clock` gives seconds.
    """

    def __init__(
        self, seconds: float, capacity: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._clock = clock
        self._weight = 0
        self._entries: OrderedDict[K, tuple[V, float, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until, _ = entry
        if self._clock() >= until:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, weight: int = 1) -> None:
        self.drop(key)
        self._entries[key] = (value, self._clock() + self._seconds, weight)
        self._weight += weight
        while self._weight > self._capacity:
            self._weight -= self._entries.popitem(last=False)[1][2]

    def clear(self) -> None:
        self._entries.clear()
        self._weight = 0

    def drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry[2]
