"""Listings of a bucket, in the order that every implementation promises."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.storage.bucket import Bucket, Listed
from tests.storage.objects import Files, keys

_COMPONENT = st.sampled_from(["a", "b", "a-b", "a.b", "a_b", "a0", "A", "_a", "ä", "z"])
_KEYS = st.sets(st.lists(_COMPONENT, min_size=1, max_size=3).map("/".join), max_size=10)


async def _fill(bucket: Bucket, names: list[str]) -> None:
    for name in names:
        await bucket.put(name, b"")


async def test_keys_are_listed_in_the_order_of_code_points(bucket: Bucket) -> None:
    """Also where a folder's name is the beginning of a file's; metadata is not listed."""
    names = ["r/B", "r/a-b/x", "r/a.b", "r/a/x", "r/a/y/z", "r/a0", "r/b"]
    for name in reversed(names):
        await bucket.put(name, b"", metadata={"a": "b"})

    assert await keys(bucket, "r/") == names == sorted(names)
    for position, name in enumerate(names):
        assert await keys(bucket, "r/", name) == names[position + 1 :]


async def test_only_what_lies_directly_below_is_listed(bucket: Bucket) -> None:
    """With `folders`, deeper keys appear once, as the prefix that they share."""
    await _fill(bucket, ["r/a/x", "r/a/y", "r/b"])

    assert await keys(bucket, "r/", folders=True) == ["r/a/", "r/b"]


async def test_listing_has_the_sizes(bucket: Bucket, files: Files) -> None:
    """Those of the objects, without their metadata, however they came; a prefix has none."""
    await bucket.put("r/put", b"one", metadata={"kind": "x"})
    await files.upload("r/sub/uploaded", b"two and more")
    await bucket.put("r/empty", b"")

    assert [each async for each in bucket.list("r/")] == [
        Listed("r/empty", 0),
        Listed("r/put", 3),
        Listed("r/sub/uploaded", 12),
    ]
    assert Listed("r/sub/") in [each async for each in bucket.list("r/", folders=True)]


async def test_listing_of_more_than_a_batch_is_whole(bucket: Bucket) -> None:
    """More keys than one step reads come all, once, and in order."""
    names = [f"r/{number:04}" for number in range(1100)]
    await _fill(bucket, names)

    assert await keys(bucket, "r/") == names
    assert await keys(bucket, "r/", "r/0999") == names[1000:]


async def test_listing_keeps_to_its_prefix(bucket: Bucket) -> None:
    """A folder whose name only begins alike is another one."""
    await _fill(bucket, ["r/x", "r-other/x", "rr/x"])

    assert await keys(bucket, "r/") == ["r/x"]


@pytest.mark.parametrize(
    "after", ["r/", "r/a", "r/a-", "r/a-b", "r/a.", "r/a/", "r/a/x", "r/~", "s"]
)
async def test_listing_goes_on_behind_any_text(bucket: Bucket, after: str) -> None:
    """`after` need not be a key: a client makes it up, or the key has gone."""
    names = ["r/a-b", "r/a.b", "r/a/x", "r/a/y", "r/a0"]
    await _fill(bucket, names)

    assert await keys(bucket, "r/", after) == [name for name in names if name > after]


async def test_listing_of_folders_goes_on_behind_a_folder(bucket: Bucket) -> None:
    """With `folders` a page ends with a prefix, and the next one begins behind it."""
    await _fill(bucket, ["r/a/x", "r/b", "r/c/x/y", "r/c/z"])

    assert await keys(bucket, "r/", "r/a/", folders=True) == ["r/b", "r/c/"]


async def test_listing_of_what_was_emptied_is_empty(bucket: Bucket) -> None:
    """A deleted object leaves neither a key nor a prefix, whatever metadata it had."""
    await bucket.put("r/a/x", b"", metadata={"kind": "x"})
    await bucket.delete("r/a/x")

    assert await keys(bucket, "r/", folders=True) == []


async def test_listing_survives_deletes_between_its_steps(bucket: Bucket) -> None:
    """Who removes all that is listed, as the sweep does, gets through."""
    names = [f"r/{number}/x" for number in range(5)]
    await _fill(bucket, names)
    found = []
    async for listed in bucket.list("r/"):
        found.append(listed.key)
        await bucket.delete(listed.key)

    assert found == names
    assert await keys(bucket, "r/") == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=_KEYS, after=st.text(alphabet="ab-./0_", max_size=4))
async def test_listing_of_any_keys_is_sorted(bucket: Bucket, names: set[str], after: str) -> None:
    """Whatever the keys, they come in the order of their code points, behind `after`."""
    leaves = {f"r/{key}" for key in names if not any(each.startswith(key + "/") for each in names)}
    await _fill(bucket, list(leaves))

    found = await keys(bucket, "r/", f"r/{after}")
    for key in leaves:
        await bucket.delete(key)

    assert found == sorted(key for key in leaves if key > f"r/{after}")
