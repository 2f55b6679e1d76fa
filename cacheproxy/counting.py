"""Requests as they end, summed up by what they count as; the sums are counted now and then.

To count a request in each of its series would cost as much as to look for a blob.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from cacheproxy.api.call import Call
from cacheproxy.api.entrance import CLIENT_GONE, Report
from cacheproxy.cases import Answer, Finding, answer_of, finding_of
from cacheproxy.exchanges import Exchange, Exchanges, Look
from cacheproxy.telemetry import SECONDS, AnswerSeries, FindingSeries, Metrics

_AT_ONCE: Final = 20  # sums, each of which takes some 10 microseconds to count

_UPLOADS: Final = frozenset({"end-4a", "end-4b", "end-5", "end-6"})
_UPLOADED: Final = frozenset({"end-4b", "end-6", "end-11"})

_Key = TypeVar("_Key")
_Sum = TypeVar("_Sum")


@dataclass(slots=True)
class _Durations:
    """How many requests took up to each of SECONDS, and how many longer; `total` in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class _Answered:
    """Requests that were answered alike; `received` and `sent` in bytes."""

    series: AnswerSeries
    requests: int = 0
    received: int = 0
    sent: int = 0
    seconds: _Durations = field(default_factory=_Durations)
    first_byte: _Durations = field(default_factory=_Durations)

    def add(self, report: Report) -> None:
        self.requests += 1
        self.received += report.call.received
        self.sent += report.call.sent
        self.seconds.add(report.seconds)
        self.first_byte.add(report.first_byte_seconds)

    def count(self) -> None:
        self.series.requests.inc(self.requests)
        self.series.received.inc(self.received)
        self.series.sent.inc(self.sent)
        self.series.seconds.observe_all(self.seconds.counts, self.seconds.total)
        self.series.first_byte.observe_all(self.first_byte.counts, self.first_byte.total)
        self.requests = self.received = self.sent = 0
        self.seconds, self.first_byte = _Durations(), _Durations()


@dataclass(slots=True)
class _Found:
    """Requests that have found the same for one client: `sent` bytes, of `size` bytes of things."""

    series: FindingSeries
    requests: int = 0
    sent: int = 0
    size: int = 0

    def add(self, call: Call) -> None:
        self.requests += 1
        self.sent += call.sent
        if call.found is not None:
            self.size += call.found.size

    def count(self) -> None:
        for counters, amount in (
            (self.series.requests, self.requests),
            (self.series.sent, self.sent),
            (self.series.sizes, self.size),
        ):
            for counter in counters:
                counter.inc(amount)
        self.requests = self.sent = self.size = 0


class _Sums(dict[_Key, _Sum], Generic[_Key, _Sum]):
    """Sums that begin when the first request comes for them."""

    def __init__(self, begin: Callable[[_Key], _Sum]) -> None:
        self._begin = begin

    def __missing__(self, key: _Key) -> _Sum:
        begun = self[key] = self._begin(key)
        return begun


class Counting:
    """Counts requests in `metrics`; of `running`, the calls that are being answered, it tells how
    many they are."""

    def __init__(self, metrics: Metrics, running: Collection[Call] = ()) -> None:
        self._metrics = metrics
        self._running = running
        self._exchanges = Exchanges()
        self._answered: _Sums[Answer, _Answered] = _Sums(
            lambda answer: _Answered(metrics.of_answer(answer))
        )
        self._found: _Sums[Finding, _Found] = _Sums(
            lambda finding: _Found(metrics.of_finding(finding))
        )

    def request_ended(self, report: Report) -> None:
        call, status = report.call, report.status
        exchange = self._exchanges.ended(call, status)
        self._answered[answer_of(call, status)].add(report)
        if (finding := finding_of(call, status, exchange)) is not None:
            self._found[finding].add(call)
        if call.endpoint in _UPLOADED and not _is_to_come(call, status):
            self._metrics.uploaded(_result(call, report), call.uploaded or call.received)

    async def count(self) -> None:
        """Count what has ended since the last time: now and then, and before it is shown, in the
        thread that tells of requests. Others that wait for it have turns meanwhile."""
        sums: list[_Answered | _Found] = [*self._answered.values(), *self._found.values()]
        sums = [each for each in sums if each.requests]
        for start in range(0, len(sums), _AT_ONCE):
            for each in sums[start : start + _AT_ONCE]:
                each.count()
            await asyncio.sleep(0)
        running = Counter({answer.endpoint: 0 for answer in self._answered})
        running.update(call.endpoint for call in self._running)
        for endpoint, requests in running.items():
            self._metrics.running(endpoint, requests)
        self._metrics.uploading(sum(running[endpoint] for endpoint in _UPLOADS))

    def settled(self) -> list[Look]:
        """Looks that no push has followed here; to be asked for now and then, see `unchanged`."""
        return self._exchanges.settled()

    def unchanged(self, look: Look) -> None:
        """No push has followed it anywhere: the tag had what the client would have pushed."""
        self._metrics.of_exchange(look.client, Exchange.UNCHANGED).inc()


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
