"""What is found out about a bucket at start, and the lock of one that ignores conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.errors import Conflict, StorageInvalid, Unavailable
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.storage.bucket import ABSENT, Match
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.s3.exclusive import LOCK_KEY, BucketInUse, Pace, exclusive_lock
from cacheproxy.storage.s3.options import Abilities
from cacheproxy.storage.s3.probe import probe
from tests.real.seaweed import SeaweedFS
from tests.real.weak_s3 import WeakS3, juicefs, rclone
from tests.storage.objects import content, keys
from tests.storage.s3_buckets import opened

_ASSUMED = Abilities()


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeakS3]:
    with rclone(tmp_path_factory.mktemp("weak")) as server:
        yield server


async def test_conditions_and_parts_of_a_good_s3_are_found(seaweed: SeaweedFS) -> None:
    """SeaweedFS has them, but lists like a tree; nothing of the probe stays."""
    async with opened(seaweed, abilities=_ASSUMED) as bucket:
        found = await probe(bucket)
        assert await keys(bucket, ".probe/") == []

    assert found == Abilities(conditional_writes=True, ranges=True, flat=False)


async def test_missing_conditions_are_found(weak: WeakS3) -> None:
    """Servers that answer 200 to a condition that does not hold are not believed."""
    async with opened(weak, abilities=_ASSUMED) as bucket:
        found = await probe(bucket)

    assert not found.conditional_writes


async def test_a_bucket_that_loses_what_is_needed_is_refused(tmp_path: Path) -> None:
    """JuiceFS, as it comes, has neither metadata nor ETags."""
    with juicefs(tmp_path) as server:
        async with opened(server, abilities=_ASSUMED) as bucket:
            with pytest.raises(StorageInvalid, match="cannot be used: the bucket"):
                await probe(bucket)


async def test_conditions_are_kept_where_s3_ignores_them(weak: WeakS3) -> None:
    """One process is right even there: of many writers one wins, and a part is a part."""
    async with opened(weak, abilities=Abilities(False, False, False)) as bucket:
        writes = [bucket.put("race", b"%d" % number, match=ABSENT) for number in range(16)]
        won = [each is None for each in await asyncio.gather(*writes, return_exceptions=True)]
        stored = await bucket.read("race")
        assert won.count(True) == 1
        assert stored is not None
        assert stored.data == b"%d" % won.index(True)
        await bucket.put("race", b"changed", match=Match(stored.version))
        with pytest.raises(Conflict):
            await bucket.put("race", b"again", match=Match(stored.version))
        with pytest.raises(Conflict):
            await bucket.delete("race", match=Match(stored.version))
        assert await content(bucket, "race", ByteRange(2, 3)) == b"ang"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"bucket": "nowhere"}, "there is no bucket 'nowhere' at http://127.0.0.1"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "S3 at http://127.0.0.1:9 cannot be reached"),
        ({"endpoint_url": "http://s3.invalid"}, "the host of http://s3.invalid is not known"),
    ],
)
async def test_a_wrong_place_is_said_in_one_sentence(
    seaweed: SeaweedFS, tried_once: None, wrong: dict[str, Any], says: str
) -> None:
    """Bucket, address and host are told apart."""
    async with opened(seaweed, **wrong) as bucket:
        with pytest.raises(StorageInvalid) as told:
            await probe(bucket)

    assert str(told.value).startswith(says)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "the access key is not known"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key does not fit the access key"),
    ],
)
async def test_a_wrong_key_is_said_in_one_sentence(
    seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """Which half of it is wrong is what S3 tells."""
    environment = seaweed.environment | {name: value}
    monkeypatch.setattr(SeaweedFS, "environment", environment)
    async with opened(seaweed) as bucket:
        with pytest.raises(StorageInvalid, match=says):
            await probe(bucket)


async def test_no_key_is_said_in_one_sentence(
    seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they were looked for is said."""
    environment = seaweed.environment
    del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setattr(SeaweedFS, "environment", environment)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    async with opened(seaweed) as bucket:
        with pytest.raises(StorageInvalid, match="no AWS credentials were found"):
            await probe(bucket)


class _Time:
    """A clock that goes when somebody sleeps, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = asyncio.Event()
        self.go = asyncio.Semaphore(0)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.set()
        await self.go.acquire()
        self.now += seconds


@pytest.fixture
def folder(tmp_path: Path) -> FolderBucket:
    return FolderBucket(str(tmp_path))


async def _pass(seconds: float) -> None:
    return None


async def test_a_second_owner_is_refused_by_name(folder: FolderBucket) -> None:
    """Until the first has gone, who leaves nothing."""
    async with exclusive_lock(folder, sleep=_once()):
        with pytest.raises(BucketInUse, match=r"the bucket is in use by .* pid \d+"):
            async with exclusive_lock(folder, sleep=_pass):
                raise AssertionError

    assert await folder.head(LOCK_KEY) is None


async def test_a_dead_owner_is_followed(folder: FolderBucket) -> None:
    """A lock that was not renewed for its time is nobody's."""
    await folder.put(LOCK_KEY, b'{"owner":"dead","renewed":1000}')
    with pytest.raises(BucketInUse, match="dead"):
        async with exclusive_lock(folder, clock=lambda: 1029.0, sleep=_once()):
            raise AssertionError
    async with exclusive_lock(folder, clock=lambda: 1031.0, sleep=_once()):
        assert await folder.head(LOCK_KEY) is not None


async def test_of_two_owners_at_once_the_last_writer_stays(folder: FolderBucket) -> None:
    """Both see no lock; who finds another's behind its own goes."""

    async def overtaken(seconds: float) -> None:
        await folder.put(LOCK_KEY, b'{"owner":"faster","renewed":1000}')

    with pytest.raises(BucketInUse, match="faster"):
        async with exclusive_lock(folder, clock=lambda: 1000.0, sleep=overtaken):
            raise AssertionError
    stored = await folder.read(LOCK_KEY)
    assert stored is not None
    assert b"faster" in stored.data


async def test_an_owner_renews_and_ends_when_it_has_lost_the_lock(folder: FolderBucket) -> None:
    """What runs under the lock is stopped when another owner has come."""
    time = _Time()
    time.go.release()

    async def own() -> None:
        async with exclusive_lock(folder, Pace(renew=5), clock=time, sleep=time.sleep):
            await _renewed(folder, time)
            await folder.put(LOCK_KEY, b'{"owner":"other","renewed":%d}' % time.now)
            time.go.release()
            await asyncio.Event().wait()

    with pytest.raises(BucketInUse, match="other"):
        await own()


async def test_an_error_inside_the_lock_is_its_own(folder: FolderBucket) -> None:
    """The lock is released and changes nothing in it."""
    with pytest.raises(Unavailable, match="inside"):
        async with exclusive_lock(folder, sleep=_once()):
            raise Unavailable("inside")
    assert await folder.head(LOCK_KEY) is None


async def _renewed(folder: FolderBucket, time: _Time) -> None:
    before = await folder.read(LOCK_KEY)
    time.slept.clear()
    time.go.release()
    await time.slept.wait()
    time.slept.clear()
    await time.slept.wait()
    after = await folder.read(LOCK_KEY)
    assert before is not None
    assert after is not None
    assert before.data != after.data


def _once() -> Callable[[float], asyncio.Future[None]]:
    """Sleep that is over at once the first time, and never then."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) > 1:
            await asyncio.Event().wait()

    return lambda seconds: asyncio.ensure_future(sleep(seconds))
