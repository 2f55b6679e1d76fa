"""Listings of a bucket, in the order that every implementation promises."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.storage.folder import FolderBucket

_COMPONENT = st.sampled_from(["a", "b", "a-b", "a.b", "a_b", "a0", "A", "_a", "ä", "z"])
_KEYS = st.sets(st.lists(_COMPONENT, min_size=1, max_size=3).map("/".join), max_size=10)


async def _list(bucket: FolderBucket, prefix: str, after: str = "") -> list[str]:
    return [key async for key in bucket.list(prefix, after=after)]


async def _fill(bucket: FolderBucket, keys: list[str]) -> None:
    for key in keys:
        await bucket.put(key, b"")


async def test_listing_of_more_than_a_batch_is_whole(bucket: FolderBucket) -> None:
    """More keys than one step reads come all, once, and in order."""
    keys = [f"r/{number:04}" for number in range(1100)]
    await _fill(bucket, keys)

    assert await _list(bucket, "r/") == keys
    assert await _list(bucket, "r/", after="r/0999") == keys[1000:]


async def test_listing_keeps_to_its_prefix(bucket: FolderBucket) -> None:
    """A folder whose name only begins alike is another one."""
    await _fill(bucket, ["r/x", "r-other/x", "rr/x"])

    assert await _list(bucket, "r/") == ["r/x"]


@pytest.mark.parametrize(
    "after", ["r/", "r/a", "r/a-", "r/a-b", "r/a.", "r/a/", "r/a/x", "r/~", "s"]
)
async def test_listing_goes_on_behind_any_text(bucket: FolderBucket, after: str) -> None:
    """`after` need not be a key: a client makes it up, or the key has gone."""
    keys = ["r/a-b", "r/a.b", "r/a/x", "r/a/y", "r/a0"]
    await _fill(bucket, keys)

    assert await _list(bucket, "r/", after) == [key for key in keys if key > after]


async def test_listing_of_folders_goes_on_behind_a_folder(bucket: FolderBucket) -> None:
    """With `folders` a page ends with a prefix, and the next one begins behind it."""
    await _fill(bucket, ["r/a/x", "r/b", "r/c/x/y", "r/c/z"])
    found = [key async for key in bucket.list("r/", after="r/a/", folders=True)]

    assert found == ["r/b", "r/c/"]


async def test_listing_of_what_was_emptied_is_empty(bucket: FolderBucket) -> None:
    """A deleted object leaves neither a key nor a prefix, whatever metadata it had."""
    await bucket.put("r/a/x", b"", metadata={"kind": "x"})
    await bucket.delete("r/a/x")

    assert [key async for key in bucket.list("r/", folders=True)] == []


async def test_listing_survives_deletes_between_its_steps(bucket: FolderBucket) -> None:
    """Who removes all that is listed, as the sweep does, gets through."""
    keys = [f"r/{number}/x" for number in range(5)]
    await _fill(bucket, keys)
    found = []
    async for key in bucket.list("r/"):
        found.append(key)
        await bucket.delete(key)

    assert found == keys
    assert await _list(bucket, "r/") == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keys=_KEYS, after=st.text(alphabet="ab-./0_", max_size=4))
async def test_listing_of_any_keys_is_sorted(
    bucket: FolderBucket, keys: set[str], after: str
) -> None:
    """Whatever the keys, they come in the order of their code points, behind `after`."""
    leaves = {f"r/{key}" for key in keys if not any(each.startswith(key + "/") for each in keys)}
    await _fill(bucket, list(leaves))

    found = await _list(bucket, "r/", f"r/{after}")
    for key in leaves:
        await bucket.delete(key)

    assert found == sorted(key for key in leaves if key > f"r/{after}")
