"""Requests that have ended are summed up by what they count as, and the sums counted at times.

To count a request in each of its series would cost as much as to look for a blob. To sum up some
requests in a row costs less than to do so with each as it ends.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from cacheproxy.api.call import Call
from cacheproxy.api.entrance import CLIENT_GONE, Report
from cacheproxy.cases import Case, case_of
from cacheproxy.exchanges import Exchange, Exchanges, Look
from cacheproxy.telemetry import Durations, Metrics

_IN_A_ROW: Final = 16  # requests; 8 to 32 cost the same, 256 cost twice as much
_AT_ONCE: Final = 20  # sums, each of which takes some 10 microseconds to count

_UPLOADS: Final = frozenset({"end-4a", "end-4b", "end-5", "end-6"})
_UPLOADED: Final = frozenset({"end-4b", "end-6", "end-11"})


@dataclass(slots=True)
class _Answers:
    """Requests of one case; `received` and `sent` in bytes."""

    case: Case
    requests: int = 0
    received: int = 0
    sent: int = 0
    seconds: Durations = field(default_factory=Durations)
    first_byte: Durations = field(default_factory=Durations)

    def add(self, report: Report) -> None:
        call = report.call
        self.requests += 1
        self.received += call.received
        self.sent += call.sent
        self.seconds.add(report.seconds)
        self.first_byte.add(report.first_byte_seconds)

    def count(self, metrics: Metrics) -> None:
        metrics.answered(self.case, self.requests, self.received, self.sent)
        metrics.took(self.case, self.seconds, self.first_byte)
        self.requests = self.received = self.sent = 0
        self.seconds, self.first_byte = Durations(), Durations()


@dataclass(slots=True)
class _Finds:
    """Those of one client: `sent` bytes, of `size` bytes of things that were found."""

    case: Case
    client: str
    requests: int = 0
    sent: int = 0
    size: int = 0

    def add(self, call: Call) -> None:
        self.requests += 1
        self.sent += call.sent
        if self.case.spared and call.found is not None:
            self.size += call.found.size

    def count(self, metrics: Metrics) -> None:
        metrics.found(self.case, self.client, self.requests, self.sent, self.size)
        self.requests = self.sent = self.size = 0


class _Sums:
    """Sums of the requests of one case: of all, and of each client where it is about clients."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.answers = _Answers(case)
        self.finds: dict[str, _Finds] = {}
        self._is_of_clients = bool(case.kind) or case.exchange is not None

    def add(self, report: Report) -> None:
        self.answers.add(report)
        if self._is_of_clients:
            call = report.call
            finds = self.finds.get(call.client)
            if finds is None:
                finds = self.finds[call.client] = _Finds(self._case, call.client)
            finds.add(call)


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
            if call.endpoint in _UPLOADED and not _is_to_come(call, status):
                self._metrics.uploaded(_result(call, report), call.uploaded or call.received)

    async def count(self) -> None:
        """Count what has ended since the last time: now and then, and before it is shown, in the
        thread that tells of requests. Others that wait for it have turns meanwhile."""
        self._sum_up()
        sums: list[_Answers | _Finds] = []
        for of_case in self._sums.values():
            sums += [of_case.answers, *of_case.finds.values()]
        sums = [each for each in sums if each.requests]
        for start in range(0, len(sums), _AT_ONCE):
            for each in sums[start : start + _AT_ONCE]:
                each.count(self._metrics)
            await asyncio.sleep(0)
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


def _is_to_come(call: Call, status: int) -> bool:
    """Whether there was nothing to mount, so that an upload follows."""
    return call.endpoint == "end-11" and status == 202


def _result(call: Call, report: Report) -> str:
    """How the upload of a blob ended."""
    if report.status == 201:
        return "mounted" if call.endpoint == "end-11" else "stored"
    if report.status == CLIENT_GONE:
        return "aborted"
    told = report.error or ""
    return "digest_mismatch" if told.startswith("DIGEST_INVALID") else "failed"
