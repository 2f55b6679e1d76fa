"""Upload sessions: one by one, and against a model of what they should do."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cacheproxy.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    SizeInvalid,
    UploadOutOfOrder,
)
from cacheproxy.oci.digest import digest_of
from cacheproxy.oci.ranges import ByteRange
from cacheproxy.oci.reference import Repository
from tests.registry.rooms import Bytes, Rooms

_APP = Repository("ci/app")


async def test_a_session_ends_with_its_lifetime(rooms: Rooms) -> None:
    """A session that is too old is unknown, and `sweep` removes its bytes."""
    session = rooms.uploads.begin(_APP)
    await rooms.uploads.append(_APP, session, Bytes(b"abc"), None)
    rooms.now += 101

    with pytest.raises(BlobUploadUnknown):
        await rooms.uploads.offset(_APP, session)
    assert await rooms.uploads.sweep() == 1
    assert await rooms.uploads.sweep() == 0


async def test_a_living_session_is_not_swept(rooms: Rooms) -> None:
    """Another session's end is none of its business."""
    session = rooms.uploads.begin(_APP)
    await rooms.uploads.append(_APP, session, Bytes(b"abc"), None)
    rooms.now += 99

    assert await rooms.uploads.sweep() == 0
    assert await rooms.uploads.offset(_APP, session) == 3


async def test_one_of_two_writers_at_one_offset_wins(rooms: Rooms) -> None:
    """The other is told where the upload ends now."""
    session = rooms.uploads.begin(_APP)
    found = await asyncio.gather(
        *(rooms.uploads.append(_APP, session, Bytes(each), None) for each in (b"abc", b"xyz")),
        return_exceptions=True,
    )

    assert sorted(map(str, map(type, found))) == sorted(map(str, (int, UploadOutOfOrder)))
    assert await rooms.uploads.offset(_APP, session) == 3


async def test_a_body_that_is_shorter_than_announced_stores_nothing(rooms: Rooms) -> None:
    """Neither as a chunk nor as a blob."""
    session = rooms.uploads.begin(_APP)
    with pytest.raises(SizeInvalid):
        await rooms.uploads.append(_APP, session, Bytes(b"abc", announced=4), None)
    with pytest.raises(SizeInvalid):
        await rooms.blobs.push(_APP, digest_of(b"abc"), Bytes(b"abc", announced=4))

    assert await rooms.uploads.offset(_APP, session) == 0
    assert rooms.spooled == []


class UploadMachine(RuleBasedStateMachine):
    """Any order of requests, with crashes between them, does what a list of bytes would do."""

    @initialize()
    def begin(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._folder = Path(tempfile.mkdtemp())
        self._rooms = Rooms(self._folder)
        self._session = self._begun = self._rooms.uploads.begin(_APP)
        self._content = b""
        self._over = False
        self._stored: set[bytes] = set()

    def teardown(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        shutil.rmtree(self._folder)

    @rule(chunk=st.binary(max_size=10), stated=st.booleans())
    def append(self, chunk: bytes, stated: bool) -> None:
        at = ByteRange(len(self._content), len(chunk)) if stated and chunk else None
        call = self._rooms.uploads.append(_APP, self._session, Bytes(chunk), at)
        if self._over:
            with pytest.raises(BlobUploadUnknown):
                self._loop.run_until_complete(call)
        else:
            self._content += chunk
            assert self._loop.run_until_complete(call) == len(self._content)
            self._session = self._rooms.uploads.chunked(self._session)

    @rule(chunk=st.binary(min_size=1, max_size=10), off=st.integers(1, 5))
    def append_out_of_order(self, chunk: bytes, off: int) -> None:
        at = ByteRange(len(self._content) + off, len(chunk))
        with pytest.raises(BlobUploadUnknown if self._over else UploadOutOfOrder):
            self._loop.run_until_complete(
                self._rooms.uploads.append(_APP, self._session, Bytes(chunk), at)
            )

    @rule(last=st.binary(max_size=10))
    def finish(self, last: bytes) -> None:
        whole = self._content + last
        call = self._rooms.uploads.finish(_APP, self._session, digest_of(whole), Bytes(last), None)
        if self._over and not (last and self._session == self._begun):
            with pytest.raises(BlobUploadUnknown):
                self._loop.run_until_complete(call)
            return
        assert self._loop.run_until_complete(call) == len(whole)
        self._stored.add(whole)
        # A session that never had chunks leaves no trace, so its PUT can be repeated.
        self._over = self._over or bool(self._content)

    @rule()
    def finish_with_another_digest(self) -> None:
        call = self._rooms.uploads.finish(
            _APP, self._session, digest_of(b"\0" * 11), Bytes(b""), None
        )
        with pytest.raises(BlobUploadUnknown if self._over else DigestInvalid):
            self._loop.run_until_complete(call)

    @rule()
    def cancel(self) -> None:
        call = self._rooms.uploads.cancel(_APP, self._session)
        if self._over:
            with pytest.raises(BlobUploadUnknown):
                self._loop.run_until_complete(call)
        else:
            self._loop.run_until_complete(call)
            self._over = True

    @rule()
    def crash(self) -> None:
        self._rooms = Rooms(self._folder)

    @invariant()
    def the_session_is_as_long_as_what_was_sent(self) -> None:
        call = self._rooms.uploads.offset(_APP, self._session)
        if self._over:
            with pytest.raises(BlobUploadUnknown):
                self._loop.run_until_complete(call)
        else:
            assert self._loop.run_until_complete(call) == len(self._content)

    @invariant()
    def every_blob_that_was_finished_is_there(self) -> None:
        for content in self._stored:
            size = self._rooms.blobs.size(_APP, digest_of(content))
            assert self._loop.run_until_complete(size) == len(content)

    @invariant()
    def nothing_is_left_in_the_spool(self) -> None:
        assert self._rooms.spooled == []


UploadMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=15)
TestUploadMachine = UploadMachine.TestCase


async def test_an_unknown_blob_is_unknown(rooms: Rooms) -> None:
    """The model above would not notice blobs that nobody pushed."""
    with pytest.raises(BlobUnknown):
        await rooms.blobs.size(_APP, digest_of(b"never pushed"))
