"""Marks: a set of keys that may be larger than the memory."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

from cacheproxy.collection.budget import Budget
from cacheproxy.errors import StorageFull, Unavailable
from cacheproxy.storage.blocking import in_thread

_PAGES_KIB: Final = 32 << 10
_NAME_BYTES: Final = 16
"""Keys are named by so many bytes of a hash: two that had one name would need 2 ** 64 of them."""

_CREATE: Final = "CREATE TABLE marks (name BLOB PRIMARY KEY) WITHOUT ROWID"

# The names come as one blob, and what is found goes as one row: for each row Python would give up
# its lock and ask for it again.
_EACH: Final = f"""
WITH RECURSIVE
    places (place) AS (SELECT 0 UNION ALL SELECT place + 1 FROM places WHERE place + 1 < :count),
    given AS (
        SELECT place, substr(:names, place * {_NAME_BYTES} + 1, {_NAME_BYTES}) AS name FROM places
    )
"""
_ADD: Final = f"{_EACH} INSERT OR IGNORE INTO marks SELECT name FROM given"
_HAS: Final = f"""{_EACH}
SELECT group_concat(place) FROM given WHERE EXISTS (SELECT 1 FROM marks WHERE name = given.name)
"""


class Marks:
    """Texts, in a temporary file as far as they need more than some MiB; gone with `close`.

    Every call takes a moment in a thread, so ask for many keys in one. Each key is taken from
    `budget`: there is no work without marks, so that is how fast it all goes.

    Raises:
        StorageFull, Unavailable: there is no room for the file, or it cannot be used.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self._budget = budget
        self._turn = asyncio.Lock()
        with _sqlite_errors:
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = OFF")  # nothing is to survive anything
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(f"PRAGMA cache_size = -{_PAGES_KIB}")
            self._database.execute(_CREATE)

    async def add(self, keys: Collection[str]) -> set[str]:
        """Mark the keys; those that were not marked before."""
        return set(keys) - await self._run(keys, add=True)

    async def has(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that are marked."""
        return await self._run(keys, add=False)

    def close(self) -> None:
        """Not while a call runs."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _run(self, keys: Collection[str], *, add: bool) -> set[str]:
        """Those of the keys that are marked already; then all are, with `add`."""
        if not keys:
            return set()
        keys = list(keys)
        names = b"".join(map(_name, keys))
        if self._budget is not None:
            await self._budget.take(len(keys))
        async with self._turn:
            found = await in_thread(self._execute, {"names": names, "count": len(keys)}, add)
        return {keys[int(place)] for place in found.split(",")} if found else set()

    def _execute(self, given: dict[str, object], add: bool) -> str | None:
        with _sqlite_errors:
            [[found]] = self._database.execute(_HAS, given)
            if add:
                self._database.execute(_ADD, given)
            return found if isinstance(found, str) else None


def _name(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=_NAME_BYTES).digest()


class _SqliteErrors:
    """Translates what SQLite raises inside."""

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise StorageFull("there is no room left for a temporary file") from error
        raise Unavailable("a temporary file cannot be used") from error


_sqlite_errors: Final = _SqliteErrors()
