"""The spool: what is on its way, and who follows it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.content.spool import SpoolFolder
from cacheproxy.errors import BlobUploadInvalid, DigestInvalid, SizeInvalid, Unavailable
from cacheproxy.oci.digest import Hasher, digest_of
from tests.content.rooms import Batches, Broken, descriptors, read, settle


@pytest.fixture
def spools(tmp_path: Path) -> SpoolFolder:
    return SpoolFolder(str(tmp_path / "spool"))


def _age(path: str) -> None:
    """Let a file be an hour old."""
    then = time.time() - 3600
    os.utime(path, (then, then))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.binary(max_size=20),
    batches=st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    algorithm=st.sampled_from(["sha256", "sha512"]),
    announced=st.booleans(),
)
async def test_spool_has_all_that_came(
    spools: SpoolFolder, before: bytes, batches: list[bytes], algorithm: str, announced: bool
) -> None:
    """In its order, however it was cut; its digest is that of all that the hasher has seen."""
    data, hasher = b"".join(batches), Hasher(algorithm)
    hasher.update(before)
    async with spools.new(hasher) as spool:
        await spool.fill(Batches(*batches, length=len(data) if announced else None))
        spool.verify(digest_of(before + data, algorithm))

        assert Path(spool.path).read_bytes() == data
        assert spool.size == len(data)
    assert os.listdir(spools.folder) == []


@pytest.mark.parametrize("length", [1, 6, 8, 100])
async def test_body_of_another_length_than_announced_is_refused(
    spools: SpoolFolder, length: int
) -> None:
    """Fewer bytes and more bytes alike, and nothing of them stays."""
    with pytest.raises(SizeInvalid):
        async with spools.new(Hasher()) as spool:
            await spool.fill(Batches(b"cont", b"ent", length=length))

    assert os.listdir(spools.folder) == []


async def test_room_that_is_reserved_is_no_content(spools: SpoolFolder) -> None:
    """The bytes that come are the first of the file, whatever room was taken for them."""
    async with spools.new(Hasher()) as spool:
        await spool.reserve(7)
        await spool.fill(Batches(b"cont", b"ent", length=7))

        assert Path(spool.path).read_bytes() == b"content"


async def test_spool_is_discarded_on_exit(spools: SpoolFolder) -> None:
    """Only who takes the file away keeps it; no descriptor stays open."""
    before = descriptors()
    async with spools.new(Hasher()) as spool:
        await spool.fill(Batches(b"content"))
        assert len(os.listdir(spools.folder)) == 1
    with pytest.raises(BlobUploadInvalid):
        async with spools.new(Hasher()) as spool:
            await spool.fill(Broken())

    assert os.listdir(spools.folder) == []
    assert descriptors() == before


async def test_spool_is_filled_batch_by_batch(spools: SpoolFolder) -> None:
    """What came is in the file before more is asked for, so memory is bounded by one batch."""
    go = asyncio.Event()
    body, told = Batches(b"some", b"rest", go=go), []

    async def wrote(size: int) -> None:
        told.append(size)

    async with spools.new(Hasher()) as spool, asyncio.TaskGroup() as tasks:
        tasks.create_task(spool.fill(body, wrote))
        await body.reached.wait()
        assert os.stat(spool.path).st_size == 4
        go.set()

    assert (spool.size, told) == (8, [4, 8])


async def test_follower_reads_what_came_and_the_last_byte_when_it_is_verified(
    spools: SpoolFolder,
) -> None:
    """Nobody takes what is wrong for right."""
    async with spools.new(Hasher()) as spool:
        with spool.follow(8) as file:
            waiting = asyncio.create_task(file.ready(0))
            await settle()
            assert not waiting.done()
            await spool.fill(Batches(b"some"))
            assert await waiting == 4
            await spool.fill(Batches(b"rest"))
            assert await file.ready(4) == 7
            waiting = asyncio.create_task(file.ready(7))
            await settle()
            assert not waiting.done()
            spool.verify(digest_of(b"somerest"))
            assert await waiting == 8


async def test_follower_reads_on_when_the_spool_has_gone(spools: SpoolFolder) -> None:
    """A verified file is all there, whoever closes or removes what it came from."""
    async with spools.new(Hasher()) as spool:
        await spool.fill(Batches(b"content"))
        spool.verify(digest_of(b"content"))
        file = spool.follow(7)

    assert await read(file) == b"content"


@pytest.mark.parametrize("size", [1, 4, 8])
async def test_follower_of_a_spool_that_failed_reads_no_further(
    spools: SpoolFolder, size: int
) -> None:
    """All that came may be read but the last byte, then the failure is told, also to the late."""
    async with spools.new(Hasher()) as spool:
        file = spool.follow(8)
        waiting = asyncio.create_task(read(file))
        await spool.fill(Batches(b"somerest"[:size]))
        with pytest.raises(DigestInvalid):
            spool.verify(digest_of(b"other"))
        spool.fail(Unavailable("broken"))

        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await read(spool.follow(8))


async def test_punched_spool_has_a_hole(spools: SpoolFolder) -> None:
    """The disk has its room back, and the digest is still that of all that came."""
    content = b"x" * (256 << 10)
    async with spools.new(Hasher()) as spool:
        await spool.fill(Batches(content))
        before = os.stat(spool.path).st_blocks
        spool.punch(128 << 10)
        spool.punch(64 << 10)
        found = os.stat(spool.path)

        assert found.st_blocks <= before // 2 + 8
        assert (found.st_size, spool.holes) == (256 << 10, 128 << 10)
        assert Path(spool.path).read_bytes()[128 << 10 :] == content[128 << 10 :]
        spool.verify(digest_of(content))


async def test_folder_that_vanished_is_made_anew(spools: SpoolFolder) -> None:
    """Also one above it: nobody has to know."""
    async with spools.new(Hasher()) as spool:
        await spool.fill(Batches(b"content"))
    os.rmdir(spools.folder)
    os.close(spools.scratch())

    assert os.listdir(spools.folder) == []


async def test_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    """The system's own words are not the client's."""
    (tmp_path / "file").touch()
    spools = SpoolFolder(str(tmp_path / "file" / "spool"))
    with pytest.raises(Unavailable):
        async with spools.new(Hasher()):
            pass
    with pytest.raises(Unavailable):
        spools.scratch()


_DIES = """
import asyncio, os, sys
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.oci.digest import Hasher

async def main():
    async with SpoolFolder(sys.argv[1]).new(Hasher()):
        os._exit(0)

asyncio.run(main())
"""


async def test_sweep_removes_what_the_dead_left(spools: SpoolFolder) -> None:
    """Not what the living hold, however old, nor what is young: its maker may be about to lock."""
    command = [sys.executable, "-c", _DIES, spools.folder]
    for _ in range(2):
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
    old, young = (f"{spools.folder}/{name}" for name in os.listdir(spools.folder))
    _age(old)
    before = descriptors()
    async with spools.new(Hasher()) as spool:
        _age(spool.path)

        assert spools.sweep() == 1
        assert sorted(os.listdir(spools.folder)) == sorted(
            map(os.path.basename, [young, spool.path])
        )
    assert descriptors() == before
