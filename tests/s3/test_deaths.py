"""A replica dies at each call to S3 of a push: what was acknowledged is there, nothing partial."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from cacheproxy.errors import Unavailable
from cacheproxy.storage.s3 import requests
from cacheproxy.storage.s3.retry import Attempt, Passing, persist
from tests.api.wire import digest
from tests.real.seaweed import SeaweedFS
from tests.s3.faults import Fault, What
from tests.s3.flows import (
    Client,
    Retry,
    Site,
    begin,
    get,
    image,
    look,
    noise,
    patch,
    pull,
    push,
    put,
    tag,
)
from tests.s3.proxy import S3Proxy
from tests.storage.s3_buckets import PART


class _Pushes:
    """What a client pushes, of its own for each `seed`, and what of it was acknowledged."""

    def __init__(self, seed: int) -> None:
        self.small = noise(1000, b"small %d" % seed)
        self.large = noise(PART + 1, b"large %d" % seed)
        self.chunks = [noise(1000, b"chunk %d %d" % (seed, number)) for number in range(2)]
        self.image = image(self.small, number=seed)
        self.tag = f"tag-{seed}"
        self.acknowledged: set[bytes] = set()

    async def blobs(self, client: Client) -> None:
        for blob in (self.small, self.large):
            await push(client, blob)
            self.acknowledged.add(blob)
        await tag(client, self.tag, self.image)
        self.acknowledged.add(self.image)

    async def chunked(self, client: Client) -> None:
        location = await begin(client)
        for chunk in self.chunks:
            location = await patch(client, location, chunk)
        whole = b"".join(self.chunks)
        await put(client, location, whole, b"")
        self.acknowledged.add(whole)

    async def check(self, client: Client) -> None:
        """What was acknowledged is there; what was not is not there, or it is right."""
        for content in (self.small, self.large, b"".join(self.chunks)):
            if await look(client, content):
                await pull(client, content)
            else:
                assert content not in self.acknowledged
        found = await get(client, self.tag)
        if found is None:
            assert self.image not in self.acknowledged
        else:
            assert found == self.image == await get(client, digest(self.image))


_Act = Callable[[_Pushes, Client], Awaitable[None]]


@pytest.fixture
async def dying(
    seaweed: SeaweedFS, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    """The same prefix behind a proxy that cuts its replicas off; the dead try nothing again."""
    folder = tmp_path / "dying"
    folder.mkdir()
    async with (
        S3Proxy.running(seaweed.endpoint) as proxy,
        Site.opened(seaweed, proxy, folder) as dying,
    ):
        monkeypatch.setattr(requests, "persist", _while_alive(proxy))
        yield dying.twin(site)


def _while_alive(proxy: S3Proxy) -> Callable[..., Awaitable[object]]:
    async def persisting(attempt: Callable[[Attempt], Awaitable[object]], seconds: float) -> object:
        async def once(which: Attempt) -> object:
            try:
                return await attempt(which)
            except Passing as failure:
                if proxy.fired:
                    raise Unavailable(str(failure)) from failure
                raise

        return await persist(once, seconds)

    return persisting


@asynccontextmanager
async def _dying(site: Site, number: int, done: bool) -> AsyncIterator[Client]:
    """A client of a replica that nobody hears of after its call with this number, which S3 has
    `done` or not. What it would tidy up it cannot, as if it had been killed."""
    async with site.replica() as replica:
        site.proxy.reset()
        if done:
            site.proxy.fail(Fault(None, None, number, What.RESET))
        site.proxy.fail(Fault(None, None, number + done, What.REFUSE, times=None))
        yield replica.client


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", [_Pushes.blobs, _Pushes.chunked])
async def test_a_replica_that_dies_at_any_call(
    site: Site, dying: Site, act: _Act, done: bool
) -> None:
    """Another one has all that was acknowledged, and goes on; a sweep finds all dead uploads."""
    async with site.replica() as living:
        for number in count(1):
            pushes = _Pushes(number)
            async with _dying(dying, number, done) as client:
                try:
                    await act(pushes, client)
                except Retry:
                    assert dying.proxy.fired
                died = bool(dying.proxy.fired)
            dying.proxy.reset()
            await pushes.check(living.client)
            await act(pushes, living.client)
            await pushes.check(living.client)
            await living.bucket.sweep(0)
            assert await living.bucket.sweep(0) == 0
            if not died:
                break
    assert number > 8
