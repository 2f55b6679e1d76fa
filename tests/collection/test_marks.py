"""Marks: sets of keys that may be larger than the memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cacheproxy.collection.marks import Marks
from cacheproxy.errors import Unavailable


@pytest.fixture
def marks() -> Iterator[Marks]:
    with Marks() as marks:
        yield marks


async def test_what_is_new_is_told(marks: Marks) -> None:
    """A key is new once, also when it is named twice in one call."""
    assert await marks.add(["a", "b", "a"]) == {"a", "b"}
    assert await marks.add(["b", "c"]) == {"c"}
    assert await marks.add([]) == set()


async def test_what_is_marked_is_told(marks: Marks) -> None:
    """Of those that were asked for."""
    await marks.add(["a", "b"])

    assert await marks.has(["b", "c"]) == {"b"}
    assert await marks.has([]) == set()


async def test_any_text_is_a_key(marks: Marks) -> None:
    """It comes back as it went in."""
    keys = {"", "'", '"', "a/b", "1", "ключ", "\n", "default/blobs/sha256/ab/cd"}

    assert await marks.add(keys) == keys
    assert await marks.has(keys) == keys


async def test_there_may_be_many(marks: Marks) -> None:
    """In one call, and in all."""
    keys = [f"sha256:{number:064x}" for number in range(50_000)]

    assert len(await marks.add(keys)) == len(keys)
    assert await marks.has(keys[::1000]) == set(keys[::1000])


async def test_many_may_ask_at_once(marks: Marks) -> None:
    """A key is new for one of them."""
    added = await asyncio.gather(*[marks.add([str(at), str(at + 1)]) for at in range(200)])

    assert sorted(key for keys in added for key in keys) == sorted(map(str, range(201)))


async def test_sets_are_apart(marks: Marks) -> None:
    """What one has, another one has not."""
    await marks.add(["a"])
    with Marks() as other:
        assert await other.has(["a"]) == set()


async def test_what_breaks_is_unavailable(marks: Marks) -> None:
    """No error of the database's own comes out."""
    marks.close()

    with pytest.raises(Unavailable):
        await marks.add(["a"])
