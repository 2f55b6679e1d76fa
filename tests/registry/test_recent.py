"""What is remembered, for how long and how much of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.recent import Recent
from tests.fakes import FaultyBucket
from tests.registry.rooms import Bytes, Rooms

_APP = Repository("ci/app")


def test_a_value_is_trusted_for_its_time() -> None:
    """It is there until its seconds are over, counted from when it was put."""
    now = 100.0
    recent: Recent[str, int] = Recent(10, 5, lambda: now)
    recent.put("a", 1)
    now = 109.9
    assert recent.get("a") == 1
    now = 110.0
    assert recent.get("a") is None


_KEYS = st.sampled_from("abcd")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _KEYS, st.integers(1, 12)),
        st.tuples(st.just("get"), _KEYS, st.just(0)),
        st.tuples(st.just("drop"), _KEYS, st.just(0)),
    )
)


@given(_STEPS)
def test_the_weight_is_bounded_and_the_least_recently_used_goes_first(
    steps: list[tuple[str, str, int]],
) -> None:
    """Against a model: a plain list in the order of use, cut from its front."""
    recent: Recent[str, int] = Recent(10, 10, lambda: 0.0)
    model: OrderedDict[str, int] = OrderedDict()
    for step, key, weight in steps:
        if step == "get":
            assert recent.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
            continue
        model.pop(key, None)
        if step == "drop":
            recent.drop(key)
            continue
        recent.put(key, weight, weight)
        model[key] = weight
        while sum(model.values()) > 10:
            model.popitem(last=False)
    assert {key: recent.get(key) for key in "abcd"} == {key: model.get(key) for key in "abcd"}


async def test_many_who_ask_for_one_blob_cost_one_look(tmp_path: Path) -> None:
    """Also when the first of them leaves before the answer."""
    plain = Rooms(tmp_path / "data")
    blob = digest_of(b"content")
    await plain.blobs.push(_APP, blob, Bytes(b"content"))
    bucket = FaultyBucket(plain.folder, fail_at=0)
    rooms = Rooms(tmp_path / "data", bucket)
    await rooms.condemned.poll()
    bucket.arm(2)
    asking = [asyncio.create_task(rooms.blobs.size(_APP, blob)) for _ in range(10)]
    await asyncio.sleep(0)
    asking[0].cancel()

    assert (await asyncio.gather(*asking, return_exceptions=True))[1:] == [7] * 9
    assert await rooms.blobs.size(_APP, blob) == 7
