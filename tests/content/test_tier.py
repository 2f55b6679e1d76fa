"""The disk tier: what stays, what goes, and that its loss harms nobody."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cacheproxy.content import tier as tier_module
from cacheproxy.content.tier import Tier
from cacheproxy.errors import Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.storage.layout import Namespace

_HOUR = 3600.0


class _Disk:
    """A folder with tiers on it, each as one of several processes has it, and their clock."""

    def __init__(self, folder: Path, limit: int = 100) -> None:
        self.folder = folder
        self.now = 1e9
        self.evicted: list[tuple[int, int]] = []
        self._limit = limit
        self.tier = self.another()

    def another(self) -> Tier:
        return Tier(
            str(self.folder),
            self._limit,
            lambda files, size: self.evicted.append((files, size)),
            lambda: self.now,
        )

    async def admit(self, content: bytes, tier: Tier | None = None) -> bool:
        """Bring `content` in, a minute after what was before."""
        self.now += 60
        tier = tier or self.tier
        os.makedirs(tier.spool, exist_ok=True)
        path = os.path.join(tier.spool, uuid.uuid4().hex)
        Path(path).write_bytes(content)
        admitted = await tier.admit(path, _key(content), len(content))
        await tier.settle()
        assert os.path.exists(path) is not admitted
        return admitted

    def content(self, content: bytes) -> bytes | None:
        """What is found under the content's key. A look is a use."""
        file = self.tier.open(_key(content))
        if file is None:
            return None
        with file:
            return file.read_at(0, file.size)

    def has(self, content: bytes) -> bool:
        """Without a use."""
        return self.path(_key(content)).exists()

    def path(self, key: str) -> Path:
        return self.folder / "blobs" / key

    @property
    def size(self) -> int:
        return sum(entry.stat().st_size for entry in self.entries)

    @property
    def entries(self) -> list[Path]:
        return [path for path in (self.folder / "blobs").rglob("*") if path.is_file()]


@pytest.fixture
def disk(tmp_path: Path) -> _Disk:
    return _Disk(tmp_path / "tier")


def _key(content: bytes) -> str:
    return Namespace().blob(digest_of(content))


def _blob(number: int, size: int = 10) -> bytes:
    return f"{number:0{size}}".encode()


async def test_what_was_admitted_is_found_by_every_process(disk: _Disk) -> None:
    """Also by one that starts later; what was not admitted is a miss."""
    assert await disk.admit(b"content")
    disk.tier = disk.another()

    assert disk.content(b"content") == b"content"
    assert disk.content(b"other") is None
    assert await disk.tier.usage() == (7, 1)


async def test_the_least_recently_used_goes_first(disk: _Disk) -> None:
    """Above the high mark entries go down to the low mark, and the eviction is reported."""
    for number in range(9):
        await disk.admit(_blob(number))
    disk.now += _HOUR
    assert disk.content(_blob(0)) == _blob(0)
    assert disk.evicted == []
    await disk.admit(_blob(9))

    assert [number for number in range(10) if not disk.has(_blob(number))] == [1]
    assert disk.evicted == [(1, 10)]
    assert await disk.tier.usage() == (90, 9)


async def test_a_use_is_marked_once_an_hour(disk: _Disk) -> None:
    """So a hot entry costs no writes; a mark from the future is set right."""
    await disk.admit(b"content")
    mark = disk.path(_key(b"content"))
    admitted = disk.now
    disk.now = admitted + _HOUR - 1
    disk.content(b"content")
    assert mark.stat().st_mtime == admitted
    disk.now = admitted + _HOUR
    disk.content(b"content")
    assert mark.stat().st_mtime == admitted + _HOUR
    disk.now = admitted - _HOUR
    disk.content(b"content")
    assert mark.stat().st_mtime == admitted - _HOUR


async def test_a_use_that_cannot_be_marked_is_a_hit(
    disk: _Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark only helps to choose what goes."""
    await disk.admit(b"content")
    disk.now += _HOUR
    monkeypatch.setattr(os, "utime", _fail)

    assert disk.content(b"content") == b"content"


async def test_a_disk_that_cannot_be_read_is_a_miss(
    disk: _Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket can still serve the request."""
    await disk.admit(b"content")
    monkeypatch.setattr(os, "open", _fail)

    assert disk.tier.open(_key(b"content")) is None


async def test_an_entry_being_read_outlives_its_eviction(disk: _Disk) -> None:
    """Its name goes, its bytes stay until the reader closes."""
    await disk.admit(_blob(0))
    file = disk.tier.open(_key(_blob(0)))
    assert file is not None
    with file:
        await disk.admit(_blob(1, 90))

        assert not disk.has(_blob(0))
        assert file.read_at(0, 10) == _blob(0)


async def test_an_entry_is_replaced_without_harm(disk: _Disk) -> None:
    """Two processes fetched one blob: it counts once, and who reads the first reads on."""
    await disk.admit(_blob(0, 60))
    file = disk.tier.open(_key(_blob(0, 60)))
    assert file is not None
    with file:
        assert await disk.admit(_blob(0, 60), disk.another())

        assert file.read_at(0, 60) == disk.content(_blob(0, 60)) == _blob(0, 60)
    assert await disk.tier.usage() == (60, 1)
    assert disk.evicted == []


async def test_a_blob_above_the_low_mark_is_refused(disk: _Disk) -> None:
    """It would push out all others. Nothing is evicted for it, nothing left of it."""
    await disk.admit(b"content")

    assert disk.tier.admits(90)
    assert not disk.tier.admits(91)
    assert not await disk.admit(_blob(0, 91))
    assert disk.content(b"content") == b"content"


def test_a_blob_that_the_disk_has_no_room_for_is_refused(
    disk: _Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known before the transfer; so is a disk that does not answer."""
    full = os.statvfs(disk.folder)
    none_free = os.statvfs_result([*full[:3], 0, 0, *full[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: none_free)
    assert not disk.tier.admits(1)
    assert disk.tier.admits(0)
    monkeypatch.setattr(os, "statvfs", _fail)
    assert not disk.tier.admits(0)


@pytest.mark.parametrize("call", ["open", "pwrite", "makedirs", "utime", "rename"])
async def test_a_disk_that_fails_an_admission_refuses_it(
    disk: _Disk, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Nothing is raised, the file stays as it is, and the next admission succeeds."""
    path = os.path.join(disk.tier.spool, "new")
    Path(path).write_bytes(b"content")
    with monkeypatch.context() as broken:
        broken.setattr(os, call, _fail)
        admitted = await disk.tier.admit(path, _key(b"content"), 7)

    assert not admitted
    assert Path(path).read_bytes() == b"content"
    assert disk.content(b"content") is None
    assert await disk.admit(b"content")


async def test_a_failed_eviction_does_not_fail_the_admission(
    disk: _Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is there; what finds no room any more is refused until eviction works again."""
    await disk.admit(_blob(0, 90))
    with monkeypatch.context() as broken:
        broken.setattr(tier_module, "unlink", _fail)
        assert await disk.admit(_blob(1))
        assert not await disk.admit(_blob(2))

    assert disk.size == 100
    assert await disk.admit(_blob(2))
    assert not disk.has(_blob(0, 90))


async def test_a_tier_survives_the_deletion_of_its_folder(disk: _Disk) -> None:
    """All are misses then, and the next admission makes the folder anew."""
    await disk.admit(_blob(0, 80))
    shutil.rmtree(disk.folder)

    assert disk.content(_blob(0, 80)) is None
    assert disk.tier.admits(80)
    assert await disk.admit(_blob(1, 80))
    assert disk.content(_blob(1, 80)) == _blob(1, 80)
    assert await disk.tier.usage() == (80, 1)


async def test_an_admission_fails_if_its_file_was_deleted_too(disk: _Disk) -> None:
    """There is nothing to admit, and nothing is raised."""
    path = os.path.join(disk.tier.spool, "gone")
    shutil.rmtree(disk.folder)

    assert not await disk.tier.admit(path, _key(b"content"), 7)
    assert disk.content(b"content") is None


@pytest.mark.parametrize("damage", [b"", b"\0" * 79, b"boot 10 many", b"\xff"])
async def test_a_lost_total_is_counted_again(disk: _Disk, damage: bytes) -> None:
    """The limit holds also when somebody deletes or damages the file that it is kept in."""
    for number in range(9):
        await disk.admit(_blob(number))
    (disk.folder / ".state").write_bytes(damage)
    assert await disk.tier.usage() == (90, 9)
    await disk.admit(_blob(9))

    assert disk.size == 90
    assert not disk.has(_blob(0))


async def test_nothing_from_an_earlier_boot_is_used(
    disk: _Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsynced bytes may be lost in a crash of the machine. The first start after it empties the
    tier, in the background; the others, started at the same time, keep what came in since."""
    await disk.admit(b"before")
    boot = tmp_path / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    monkeypatch.setattr(tier_module, "_BOOT_ID", str(boot))
    disk.tier = disk.another()
    assert disk.content(b"before") is None
    assert await disk.tier.usage() == (0, 0)
    await disk.admit(b"since")
    others = await asyncio.gather(*(asyncio.to_thread(disk.another) for _ in range(8)))

    _join_threads()
    assert disk.content(b"since") == b"since"
    assert await others[0].usage() == (5, 1)
    assert sorted(os.listdir(disk.folder)) == [".state", "blobs", "spool"]


async def test_entries_of_an_earlier_version_count_and_go(disk: _Disk) -> None:
    """They lie elsewhere, so nobody uses them; they are the first that go."""
    old = disk.path("sha256/ab/abcd")
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x" * 50)
    os.utime(old, (1, 1))
    (disk.folder / ".state").unlink()
    assert await disk.tier.usage() == (50, 1)
    await disk.admit(_blob(0, 50))

    assert not old.exists()
    assert disk.has(_blob(0, 50))


async def test_an_unknown_boot_is_a_new_one(
    disk: _Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system does not tell, every start finds the tier empty."""
    monkeypatch.setattr(tier_module, "_BOOT_ID", str(tmp_path / "absent"))
    for start in range(3):
        disk.tier = disk.another()
        assert not disk.has(b"content"), start
        assert await disk.admit(b"content")
    _join_threads()


async def test_what_was_being_deleted_at_a_kill_is_deleted_at_the_next_start(disk: _Disk) -> None:
    """An emptied tier gives its space back in the end."""
    (disk.folder / ".gone-x" / "sha256").mkdir(parents=True)
    disk.another()
    _join_threads()

    assert not (disk.folder / ".gone-x").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """At start, where an operator looks."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        Tier(str(tmp_path / "file" / "tier"), 100)


async def test_the_limit_holds_under_concurrent_admissions(tmp_path: Path) -> None:
    """Four processes admit at once. The running total may be too high, never too low."""
    disk = _Disk(tmp_path / "tier", 1000)
    tiers = [disk.another() for _ in range(4)]
    for turn in range(40):
        blobs = [_blob(4 * turn + at, 10 + (turn + at) % 7 * 20) for at in range(4)]
        await asyncio.gather(*(disk.admit(*each) for each in zip(blobs, tiers, strict=True)))

        total, files = await disk.tier.usage()
        assert disk.size <= min(total, 1000)
        assert len(disk.entries) <= files
    assert disk.evicted


class TierMachine(RuleBasedStateMachine):
    """Two processes on one folder do together what a list in the order of use would do."""

    @initialize()
    def begin(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._folder = Path(tempfile.mkdtemp())
        self._disk = _Disk(self._folder / "tier")
        self._tiers = [self._disk.tier, self._disk.another()]
        self._used: dict[bytes, float] = {}
        self._total = 0

    def teardown(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        shutil.rmtree(self._folder)

    @rule(process=st.integers(0, 1), number=st.integers(0, 9), size=st.integers(1, 95))
    def admit(self, process: int, number: int, size: int) -> None:
        content = _blob(number, size)
        admitted = self._loop.run_until_complete(self._disk.admit(content, self._tiers[process]))

        assert admitted == (size <= 90)
        if not admitted:
            return
        if self._total + self._growth(content) > 100:
            self._evict(90 - size)
        self._total += self._growth(content)
        self._used[content] = self._disk.now
        if self._total > 95:
            self._evict(90)

    @rule(process=st.integers(0, 1), data=st.data(), wait=st.sampled_from([60.0, _HOUR]))
    def read(self, process: int, data: st.DataObject, wait: float) -> None:
        content = data.draw(st.sampled_from([b"absent", *self._used]))
        self._disk.now += wait
        self._disk.tier = self._tiers[process]

        assert self._disk.content(content) == (content if content in self._used else None)
        if content in self._used and self._disk.now - self._used[content] >= _HOUR:
            self._used[content] = self._disk.now

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        content = data.draw(st.sampled_from([b"absent", *self._used]))
        self._disk.path(_key(content)).unlink(missing_ok=True)
        self._used.pop(content, None)

    @rule(process=st.integers(0, 1))
    def restart(self, process: int) -> None:
        self._tiers[process] = self._disk.another()

    @rule()
    def delete_the_folder(self) -> None:
        shutil.rmtree(self._disk.folder)
        self._used.clear()
        self._total = 0

    @invariant()
    def the_limit_holds(self) -> None:
        assert set(self._disk.entries) == {self._disk.path(_key(each)) for each in self._used}
        assert self._disk.size <= self._total <= 100
        usage = self._loop.run_until_complete(self._tiers[0].usage())
        assert usage[0] == self._total

    def _growth(self, content: bytes) -> int:
        return 0 if content in self._used else len(content)

    def _evict(self, target: int) -> None:
        self._total = sum(map(len, self._used))
        for content in sorted(self._used, key=lambda each: self._used[each]):
            if self._total <= target:
                break
            del self._used[content]
            self._total -= len(content)


TestTier = TierMachine.TestCase
TestTier.settings = settings(max_examples=60, stateful_step_count=40)


def _fail(*args: object, **kwargs: object) -> int:
    raise OSError(28, "No space left on device")


def _join_threads() -> None:
    """Wait for what runs in the background."""
    for thread in threading.enumerate():
        if thread.daemon and "rmtree" in thread.name:
            thread.join()
