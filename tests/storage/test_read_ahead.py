"""What bodies read ahead."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing

import pytest
from aiohttp import EMPTY_PAYLOAD, StreamReader
from aiohttp.base_protocol import BaseProtocol

from cacheproxy.storage.read_ahead import ReadAhead


def test_many_bodies_share_what_is_there_for_all() -> None:
    """One does not get all of it, and who leaves makes room."""
    ahead = ReadAhead()
    with ExitStack() as stack:
        shares = [stack.enter_context(ahead.share()) for _ in range(200)]

        assert max(shares) == shares[0] == 1 << 20
        assert sum(shares) < 64 << 20
        assert 0 < shares[-1] < shares[0]
    with ahead.share() as share:
        assert share == shares[0]


async def test_a_batch_is_all_that_has_gathered() -> None:
    content = _content()
    content.feed_data(b"what ")
    content.feed_data(b"is here")
    async with aclosing(ReadAhead().batches(content)) as batches:
        assert bytes(await anext(batches)) == b"what is here"

        content.feed_data(b"what comes")
        content.feed_eof()
        assert [bytes(batch) async for batch in batches] == [b"what comes"]


@pytest.mark.parametrize("chunks", [[], [b""], [b"one", b"", b"two"], [b"", b"x" * 100]])
async def test_the_chunks_of_a_body_are_not_its_end(chunks: list[bytes]) -> None:
    content = _content()
    for chunk in chunks:
        content.begin_http_chunk_receiving()
        content.feed_data(chunk)
        content.end_http_chunk_receiving()
    content.feed_eof()
    async with aclosing(ReadAhead().batches(content)) as batches:
        assert b"".join([bytes(batch) async for batch in batches]) == b"".join(chunks)


async def test_no_body_is_one_without_batches() -> None:
    async with aclosing(ReadAhead().batches(EMPTY_PAYLOAD)) as batches:
        assert [batch async for batch in batches] == []


async def test_a_body_that_breaks_is_no_end() -> None:
    content = _content()
    content.feed_data(b"some")
    async with aclosing(ReadAhead().batches(content)) as batches:
        await anext(batches)
        content.set_exception(ConnectionResetError())
        with pytest.raises(ConnectionResetError):
            await anext(batches)


def _content() -> StreamReader:
    loop = asyncio.get_running_loop()
    return StreamReader(BaseProtocol(loop), 1 << 16, loop=loop)
