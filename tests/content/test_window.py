"""The window: as far ahead as its reader needs, and no further."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.content import window as window_module
from cacheproxy.content.spool import SpoolFolder
from cacheproxy.content.window import Window
from cacheproxy.errors import Unavailable
from cacheproxy.oci.ranges import ByteRange
from tests.content.rooms import KEY, Room, descriptors, read, settle, until

_PIECE = 8
_CONTENT = bytes(range(100))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "_PIECE_BYTES", _PIECE)


async def _window(room: Room, part: ByteRange, content: bytes = _CONTENT) -> Window:
    await room.hold(content)
    window = await Window.open(room.remote, room.spools, KEY, part)
    assert window is not None
    return window


def _end(window: Window) -> int:
    """How far it has read, which only a test needs to know."""
    return window._end


async def _reads_to(window: Window, end: int) -> None:
    await until(lambda: _end(window) == end)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), batch=st.integers(1, 20), breaks=st.lists(st.integers(1, 20), max_size=5))
async def test_window_has_its_part(
    room: Room, data: st.DataObject, batch: int, breaks: list[int]
) -> None:
    """Whatever the part, how it comes, and where it breaks; `size` is that of the whole."""
    start = data.draw(st.integers(0, 99))
    length = data.draw(st.integers(1, 100 - start))
    room.remote.batch_bytes, room.remote.breaks = batch, breaks
    window = await _window(room, ByteRange(start, length))

    assert window.size == 100
    assert await read(window, start, start + length) == _CONTENT[start : start + length]
    await until(lambda: room.remote.streaming == 0)


async def test_window_reads_two_pieces_ahead_and_goes_on_with_its_reader(room: Room) -> None:
    """A reader that stops holds no more than that, and no connection."""
    with await _window(room, ByteRange(10, 50)) as window:
        for done in (0, _PIECE, 2 * _PIECE):
            assert await window.ready(10 + done) > 10 + done
            await _reads_to(window, 10 + done + 2 * _PIECE)
            await until(lambda: room.remote.streaming == 0)
            await settle()
            assert _end(window) == 10 + done + 2 * _PIECE

        assert room.remote.parts(KEY) == [
            ByteRange(10 + number * _PIECE, _PIECE) for number in range(4)
        ]


async def test_window_gives_what_came_before_a_piece_is_whole(room: Room) -> None:
    """The first bytes need not wait for the others."""
    room.remote.gate = asyncio.Semaphore(1)
    with await _window(room, ByteRange(0, 100)) as window:
        assert await window.ready(0) == 4
        waiting = asyncio.create_task(window.ready(4))
        await settle()
        assert not waiting.done()
        room.remote.gate.release()
        assert await waiting == 8


async def test_window_gives_back_what_was_read(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk holds a few pieces of an object, however large that is."""
    monkeypatch.setattr(window_module, "_PIECE_BYTES", 64 << 10)
    room.remote.batch_bytes = 16 << 10
    content = os.urandom(1 << 20)
    before = descriptors()
    with await _window(room, ByteRange(0, 1 << 20), content) as window:
        got = b""
        while len(got) < window.size:
            end = await window.ready(len(got))
            got += window.read_at(len(got), end - len(got))
            assert os.fstat(window.fd).st_blocks * 512 <= 64 << 10
            assert descriptors() - before <= 3 + room.remote.streaming

    assert got == content


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_window_that_is_closed_in_the_middle_lets_go_of_all(room: Room, taken: int) -> None:
    """Neither its stream, nor a descriptor, nor a file stays."""
    await room.hold(_CONTENT)
    before, room.remote.gate = descriptors(), asyncio.Semaphore(taken)
    window = await _window(room, ByteRange(0, 100))
    await until(room.remote.gate.locked)
    await settle()
    assert room.remote.streaming == 1
    window.close()
    await until(lambda: (room.remote.streaming, descriptors()) == (0, before))

    assert room.spooled == []


async def test_window_that_is_closed_while_it_waits_for_its_reader_lets_go_of_all(
    room: Room,
) -> None:
    """Its task ends, though no reader comes any more."""
    before, running = descriptors(), len(asyncio.all_tasks())
    window = await _window(room, ByteRange(0, 100))
    await _reads_to(window, 2 * _PIECE)
    window.close()
    await until(lambda: (room.remote.streaming, descriptors()) == (0, before))

    assert (len(asyncio.all_tasks()), room.spooled) == (running, [])


async def test_window_that_is_closed_at_once_lets_go_of_all(room: Room) -> None:
    """Also if its task has not had its first turn yet."""
    before, running = descriptors(), len(asyncio.all_tasks())
    window = await _window(room, ByteRange(0, 100))
    window.close()
    await until(lambda: (room.remote.streaming, descriptors()) == (0, before))

    assert len(asyncio.all_tasks()) == running


async def test_window_on_what_is_absent_is_none(room: Room) -> None:
    """Nothing is made for it."""
    before = descriptors()
    assert await Window.open(room.remote, room.spools, KEY, ByteRange(0, 1)) is None
    assert descriptors() == before


async def test_window_without_a_disk_is_unavailable(room: Room, tmp_path: Path) -> None:
    """The stream is let go of."""
    await room.hold(_CONTENT)
    (tmp_path / "file").touch()
    spools = SpoolFolder(str(tmp_path / "file" / "x"))
    window = await Window.open(room.remote, spools, KEY, ByteRange(0, 1))
    assert window is not None
    with window, pytest.raises(Unavailable):
        await window.ready(0)

    await until(lambda: room.remote.streaming == 0)


async def test_window_goes_on_from_where_its_stream_broke(room: Room) -> None:
    """No byte is asked for twice, and a break that brought a byte is no failure in a row."""
    room.remote.breaks = [3, 0, 4, 0]
    window = await _window(room, ByteRange(20, 10))

    assert await read(window, 20, 30) == _CONTENT[20:30]
    asked = [(part.start, part.length) for part in room.remote.parts(KEY) if part]
    assert asked == [(20, 8), (23, 5), (23, 5), (27, 1), (27, 1), (28, 2)]


async def test_window_whose_stream_breaks_behind_its_last_byte_is_whole(room: Room) -> None:
    """All has come: there is nothing to be asked for again."""
    room.remote.breaks = [4, 4]
    window = await _window(room, ByteRange(20, 4))

    assert await read(window, 20, 24) == _CONTENT[20:24]
    await until(lambda: room.remote.streaming == 0)
    assert room.remote.parts(KEY) == [ByteRange(20, 4)]


async def test_window_whose_stream_breaks_three_times_fails_its_reader(room: Room) -> None:
    """What came before can be read; then the reader is told, also if it comes late."""
    room.remote.breaks = [3, 0, 0]
    with await _window(room, ByteRange(20, 10)) as window:
        assert await window.ready(20) == 23
        for _ in range(2):
            with pytest.raises(Unavailable):
                await window.ready(23)

    assert len(room.remote.opened) == 3
    assert room.remote.streaming == 0


async def test_window_on_what_vanishes_fails_its_reader(room: Room) -> None:
    """An object that is deleted in the middle does not end as if it were shorter."""
    with await _window(room, ByteRange(0, 100)) as window:
        await _reads_to(window, 2 * _PIECE)
        await room.folder.delete(KEY)
        assert await window.ready(_PIECE) == 2 * _PIECE
        with pytest.raises(Unavailable):
            await window.ready(2 * _PIECE)


async def test_what_the_kernel_has_yet_to_send_is_not_taken_away(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends from the very pages of the file, perhaps long after its reader went on."""
    monkeypatch.setattr(window_module, "_PIECE_BYTES", 30_000)  # pages are shared
    room.remote.batch_bytes = 5000
    content = os.urandom(200 << 10)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
        await _window(room, ByteRange(0, len(content)), content) as window,
    ):
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = 0
        while sent < len(content):
            count = min(await window.ready(sent) - sent, 7000)
            sent += os.sendfile(sender.fileno(), window.fd, sent, count)
        await settle()
        sender.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: receiver.recv(1 << 20), b""))

    assert got == content
