"""The catalog's order, which folders do not have by themselves."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.reference import Repository
from cacheproxy.storage.layout import Namespace
from tests.registry.rooms import Rooms

_NAMES = st.sets(
    st.lists(st.sampled_from(["a", "b", "a-b", "a.b", "a_b", "a0"]), min_size=1, max_size=3).map(
        "/".join
    ),
    max_size=8,
)


@settings(max_examples=30)
@given(names=_NAMES, after=st.sampled_from(["", "a", "a-b", "a/b", "a/a-b/b", "b"]))
async def test_names_are_listed_in_order_behind_the_last(names: set[str], after: str) -> None:
    """Each page goes on where the one before has ended, in the order of code points."""
    with tempfile.TemporaryDirectory() as folder:
        rooms = Rooms(Path(folder))
        for name in names:
            key = Namespace().manifest(Repository.parse(name), digest_of(b"x"))
            await rooms.folder.put(key, b"x")

        found = [name async for name in rooms.catalog.list(after)]

    assert found == sorted(name for name in names if name > after)
