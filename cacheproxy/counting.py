"""Requests that have ended are summed up by what they count as, and the sums counted at times.

To count a request in each of its series would cost as much as to look for a blob. To sum up some
requests in a row costs less than to do so with each as it ends.
"""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cacheproxy.api.call import Call
from cacheproxy.api.entrance import CLIENT_GONE, Report
from cacheproxy.cases import Case, case_of
from cacheproxy.exchanges import Exchange, Exchanges, Look
from cacheproxy.telemetry import Metrics

_IN_A_ROW: Final = 16  # requests; 8 to 32 cost the same, 256 cost twice as much
_AT_ONCE: Final = 20  # sums, each of which takes some 10 microseconds to count
_TIMES_AT_ONCE: Final = 2000

_UPLOADS: Final = frozenset({"end-4a", "end-4b", "end-5", "end-6"})
_UPLOADED: Final = frozenset({"end-4b", "end-6", "end-11"})


@dataclass(slots=True)
class _Sum:
    """Requests of one case that one client has sent; all but their number in bytes, `size` is that
    of what was found."""

    requests: int = 0
    received: int = 0
    sent: int = 0
    size: int = 0


class _Sums:
    """Requests of one case."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._of: dict[str, _Sum] = {}
        self._times = array("d")
        """Seconds until each ended, and until its first byte, in turns."""

    def add(self, report: Report) -> None:
        """Takes a third of what counting costs, so it is one function, and sorts nothing yet."""
        call = report.call
        self._times.extend((report.seconds, report.first_byte_seconds))
        of_client = self._of.get(call.client)
        if of_client is None:
            of_client = self._of[call.client] = _Sum()
        of_client.requests += 1
        of_client.received += call.received
        of_client.sent += call.sent
        if self._case.spared and call.found is not None:
            of_client.size += call.found.size

    async def count(self, metrics: Metrics) -> None:
        """Some at a time: others have turns meanwhile, and what they add is left for later."""
        for _ in range(0, len(self._times), _TIMES_AT_ONCE):
            times = self._times[:_TIMES_AT_ONCE]
            del self._times[:_TIMES_AT_ONCE]
            metrics.took(self._case, times[0::2], times[1::2])
            await asyncio.sleep(0)
        clients = list(self._of)
        for start in range(0, len(clients), _AT_ONCE):
            for client in clients[start : start + _AT_ONCE]:
                self._count_one(client, metrics)
            await asyncio.sleep(0)

    def _count_one(self, client: str, metrics: Metrics) -> None:
        if (of := self._of.pop(client, None)) is not None:  # or somebody else has counted it
            metrics.answered(self._case, of.requests, of.received, of.sent)
            metrics.found(self._case, client, of.requests, of.sent, of.size)


class Counting:
    """Counts requests in `metrics`; of `running`, the calls that are being answered, it tells how
    many they are."""

    def __init__(self, metrics: Metrics, running: Collection[Call] = ()) -> None:
        self._metrics = metrics
        self._running = running
        self._exchanges = Exchanges()
        self._ended: list[Report] = []
        self._sums: dict[Case, _Sums] = {}

    def request_ended(self, report: Report) -> None:
        self._ended.append(report)
        if len(self._ended) >= _IN_A_ROW:
            self._sum_up()

    def _sum_up(self) -> None:
        ended, self._ended = self._ended, []
        for report in ended:
            call, status = report.call, report.status
            exchange = self._exchanges.ended(call, status, report.at)
            case = case_of(call, status, exchange)
            sums = self._sums.get(case)
            if sums is None:
                sums = self._sums[case] = _Sums(case)
            sums.add(report)
            if call.endpoint in _UPLOADED and not _is_to_come(call, report.done):
                self._metrics.uploaded(_result(call, report), call.uploaded or call.received)

    async def count(self) -> None:
        """Count what has ended since the last time: now and then, and before it is shown, in the
        thread that tells of requests."""
        self._sum_up()
        for sums in tuple(self._sums.values()):
            await sums.count(self._metrics)
        running = Counter({case.endpoint: 0 for case in self._sums})
        running.update(call.endpoint for call in self._running)
        for endpoint, requests in running.items():
            self._metrics.running(endpoint, requests)
        self._metrics.uploading(sum(running[endpoint] for endpoint in _UPLOADS))

    def settled(self) -> list[Look]:
        """Looks that no push has followed here; to be asked for now and then, see `unchanged`."""
        self._sum_up()
        return self._exchanges.settled(time.time_ns())

    def unchanged(self, look: Look) -> None:
        """No push has followed it anywhere: the tag had what the client would have pushed."""
        self._metrics.exchanged(look.client, Exchange.UNCHANGED)


def _is_to_come(call: Call, done: int) -> bool:
    """Whether there was nothing to mount, so that an upload follows."""
    return call.endpoint == "end-11" and done == 202


def _result(call: Call, report: Report) -> str:
    """How the upload of a blob ended."""
    if report.done == 201:
        return "mounted" if call.endpoint == "end-11" else "stored"
    if report.done == CLIENT_GONE:
        return "aborted"
    told = report.error or ""
    return "digest_mismatch" if told.startswith("DIGEST_INVALID") else "failed"
