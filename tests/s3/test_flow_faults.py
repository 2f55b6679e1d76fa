"""Each call to S3 of each flow goes wrong: the client gets success or one clear error, never
anything wrong, and then it succeeds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, cycle

import pytest

from cacheproxy.storage.s3 import retry
from tests.s3.calls import Kind
from tests.s3.enumerated import FLOWS, Flow
from tests.s3.faults import Fault, What
from tests.s3.flows import HANGING_SECONDS, Replica, Retry, Site, noise, pull, push, until

_UNHEARD = (What.REFUSE, What.ERROR, What.SLOW_DOWN)
"""How a call fails of which S3 never hears. The bucket takes them alike, see test_s3_faults, so
each call of a flow fails in one of these ways, in turn."""
_PASSING = (What.RESET, What.CUT)
_DAMAGING = (What.TRUNCATED, What.WRONG)
_BODY = frozenset({What.CUT, *_DAMAGING})
_AT = 20  # in the middle of every body
_HASTY = {"read": 0.2, "write": 0.4}
# Less than S3 is waited for elsewhere.
_SOON = 8
_POLL = ("ListObjectsV2", "deleted")

_Call = tuple[str, Kind, int]


class _Bench:
    """Runs a flow again and again at a replica; another one prepares and checks it."""

    def __init__(self, site: Site, flow: Flow, replica: Replica, another: Replica) -> None:
        self._site = site
        self._flow = flow
        self.replica = replica
        self._another = another
        self._seeds = count()
        self.seed = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, site: Site, flow: Flow) -> AsyncIterator[_Bench]:
        async with site.replica() as another, site.replica() as replica:
            yield cls(site, flow, replica, another)

    async def prepare(self) -> None:
        """Have what the flow needs, for a seed that was not used."""
        self.seed = next(self._seeds)
        if self._flow.prepare is not None:
            await self._flow.prepare(self._another.client, self.seed)
        self._site.proxy.reset()

    async def calls(self) -> list[tuple[_Call, bool]]:
        """The operation, the kind of key, and which of such calls it is; and whether S3 answers
        it with a body."""
        await self.prepare()
        assert await self.run()
        calls = self._site.proxy.calls
        await until(lambda: all(call.over for call in calls))
        found: list[tuple[_Call, bool]] = []
        times: Counter[tuple[str, Kind]] = Counter()
        for call in calls:
            name = (call.operation, call.kind)
            if name == _POLL or self._flow.only not in (None, call.kind):
                continue
            times[name] += 1
            with_body = call.method == "GET" and call.received > _AT
            found.append(((*name, times[name]), with_body))
        return found

    async def faults(self) -> list[tuple[What, _Call]]:
        """All that can go wrong: how, and with what call."""
        return [
            (what, call)
            for (call, with_body), unheard in zip(await self.calls(), cycle(_UNHEARD), strict=False)
            for what in (unheard, *_PASSING, *_DAMAGING)
            if with_body or what not in _BODY
        ]

    async def run(self) -> bool:
        try:
            await self._flow.run(self.replica.client, self.seed)
        except Retry:
            return False
        return True

    async def check(self, left: int) -> None:
        """It succeeds now, here and elsewhere, and nothing is left but so many uploads, of which
        S3 alone knows."""
        self._site.proxy.reset()
        deadline = time.monotonic() + HANGING_SECONDS
        while not await self.run():
            assert time.monotonic() < deadline
        checker = self._another if self._flow.everywhere else self.replica
        await self._flow.check(checker.client, self.seed)
        await until(lambda: self.replica.spooled == [])
        self.replica.check_entries()
        assert await self._site.bucket().sweep(0) == left


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
async def test_one_call_that_goes_wrong(
    site: Site, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes is not seen by the client at all, unless chunks are read; of what is damaged it
    gets nothing, but may have to try again. Nothing partial or wrong is visible, then or later."""
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    # A part of a cold blob cannot be verified, nor can a chunk alone.
    unverified = [("GetObject", "blob")] if flow is FLOWS["pull-range"] else []
    unverified += [("GetObject", "upload")]
    async with _Bench.opened(site, flow) as bench:
        for what, call in await bench.faults():
            if what is What.WRONG and call[:2] in unverified:
                continue
            await bench.prepare()
            site.proxy.fail(Fault(*call, what, at=_AT))
            succeeded = await bench.run()
            assert len(site.proxy.fired) == 1, (what, call)
            may_fail = what in _DAMAGING or (what is What.CUT and call[1] == "upload")
            assert succeeded or may_fail, (what, call)
            orphan = what is What.RESET and call[0] == "CreateMultipartUpload"
            await bench.check(left=int(orphan))


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
async def test_a_call_that_goes_wrong_for_long(site: Site, flow: Flow) -> None:
    """The client hears of it in the time that is set, and can go on when it is over."""
    async with _Bench.opened(site, flow) as bench:
        for call, _ in await bench.calls():
            await bench.prepare()
            site.proxy.fail(Fault(*call, What.ERROR, times=None))
            began = time.monotonic()
            with bench.replica.hasty(**_HASTY):
                assert not await bench.run(), call
            assert time.monotonic() - began < _SOON
            await bench.check(left=0)


async def test_a_damaged_blob_that_the_tier_cannot_take(site: Site) -> None:
    """Its last byte is withheld too; the next time it comes as it is."""
    blob = noise(300_000)
    async with site.replica() as another, site.replica(tier__bytes=100_000) as replica:
        await push(another.client, blob)
        site.proxy.reset()
        # The first is given up as soon as the tier knows that the blob is too large for it.
        site.proxy.fail(Fault("GetObject", "blob", 2, What.WRONG, at=200_000))
        with pytest.raises(Retry):
            await pull(replica.client, blob)
        assert len(site.proxy.fired) == 1
        assert not replica.entry(blob).exists()
        site.proxy.reset()
        await pull(replica.client, blob)
