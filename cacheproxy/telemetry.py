"""Every metric, defined once.

At most `clients.names` and two more clients have series of their own, all other labels have few
values: see README, "Metrics", for how many series that are.
"""

import asyncio
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    exposition,
)
from prometheus_client.multiprocess import MultiProcessCollector

from cacheproxy import __version__
from cacheproxy.api.call import Call, Kind
from cacheproxy.api.entrance import CLIENT_GONE, Report
from cacheproxy.exchanges import Exchange, Exchanges, Look
from cacheproxy.tallies import Case, Tally, case_of

# Without them a scrape is half as long, and nobody draws when a series began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

_AT_ONCE: Final = 20  # cases, each of which takes some 10 microseconds to count

_UPLOADS: Final = frozenset({"end-4a", "end-5", "end-6"})
_UPLOADED: Final = frozenset({"end-4b", "end-6", "end-11"})


class _Histogram(Histogram):
    """Takes many observations at once."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        amounts, below = sorted(amounts), 0
        for bucket, bound in zip(self._buckets, self._upper_bounds, strict=True):
            upto = bisect_right(amounts, bound)
            if upto > below:
                bucket.inc(upto - below)
            below = upto
        self._sum.inc(sum(amounts))


@dataclass(frozen=True, slots=True)
class _Series:
    """Where the requests of one case are counted: each of them, the bytes of their bodies, and
    those of what they found."""

    requests: Sequence[Counter]
    sizes: Sequence[Counter]
    received: Sequence[Counter]
    sent: Sequence[Counter]
    seconds: _Histogram
    first_byte: _Histogram

    def count(self, tally: Tally) -> None:
        for counters, amount in (
            (self.requests, tally.requests),
            (self.sizes, tally.size),
            (self.received, tally.received),
            (self.sent, tally.sent),
        ):
            for counter in counters if amount else ():
                counter.inc(amount)


class Metrics:
    """The metrics of one process, or with `shared` (a folder) of all that share the folder.

    prometheus_client picks its kind of values when it is imported, so the folder must be in the
    environment before that: see `workers.py`.
    """

    def __init__(self, shared: str | None = None) -> None:
        self._registry = CollectorRegistry()
        self._shared = shared
        self._exchanges = Exchanges()
        self._define_http()
        self._define_cache()
        self._define_clients()
        self._define_storage()
        self._define_collection()
        # Looking children up costs more than counting does.
        self._series = lru_cache(10_000)(self._find_series)
        self._exchanged_by = lru_cache(1000)(self._find_exchanges)
        self._running: defaultdict[str, int] = defaultdict(int)
        self._tallies: defaultdict[Case, Tally] = defaultdict(Tally)

    def _define_http(self) -> None:
        self._requests = self._counter(
            "cacheproxy_http_requests",
            "Requests answered, by the spec's number of the endpoint.",
            ["endpoint", "method", "code"],
        )
        self._seconds = self._histogram(
            "cacheproxy_http_request_duration_seconds",
            "From the head of a request to the last byte of its answer.",
            ["endpoint", "method"],
        )
        self._first_byte = self._histogram(
            "cacheproxy_http_time_to_first_byte_seconds",
            "From the head of a request to the head of its answer.",
            ["endpoint", "method"],
        )
        self._in_progress = self._gauge(
            "cacheproxy_http_requests_in_progress",
            "Requests that are being answered.",
            ["endpoint"],
        )
        self._received = self._counter(
            "cacheproxy_http_request_bytes", "Bytes of request bodies.", ["endpoint"]
        )
        self._sent = self._counter(
            "cacheproxy_http_response_bytes", "Bytes of answers' bodies.", ["endpoint"]
        )
        self._uploading = self._gauge(
            "cacheproxy_uploads_in_progress", "Requests that bring a blob or a part of one."
        )
        self._lag = self._histogram(
            "cacheproxy_event_loop_lag_seconds",
            "How late the event loop is, looked at a few times a second.",
            buckets=_LAGS,
        )
        build = self._gauge(
            "cacheproxy_build_info",
            "Always 1; the labels tell what is running.",
            ["version", "python"],
            mode="max",
        )
        build.labels(__version__, sys.version.split()[0]).set(1)

    def _define_cache(self) -> None:
        self._cache_requests = self._counter(
            "cacheproxy_cache_requests",
            "Looks for manifests and blobs: what was found, how, and in which tier.",
            ["kind", "op", "result", "tier"],
        )
        self._cache_bytes = self._counter(
            "cacheproxy_cache_bytes",
            "Bytes of manifests and blobs that were sent.",
            ["kind", "result", "tier"],
        )
        self._blob_uploads = self._counter(
            "cacheproxy_blob_uploads", "Uploads of blobs that ended, and how.", ["result"]
        )
        self._blob_upload_bytes = self._counter(
            "cacheproxy_blob_upload_bytes",
            "Bytes of these; of those that were not stored, what the last request brought.",
            ["result"],
        )
        for kind in Kind:
            for op in ("get", "head"):
                self._cache_requests.labels(kind.value, op, "miss", "none")
        for result in ("stored", "mounted", "digest_mismatch", "aborted", "failed"):
            self._blob_uploads.labels(result)
            self._blob_upload_bytes.labels(result)

    def _define_clients(self) -> None:
        self._client_requests = self._counter(
            "cacheproxy_client_cache_requests",
            "Looks for manifests and blobs, by who looked.",
            ["client", "kind", "result"],
        )
        self._client_bytes = self._counter(
            "cacheproxy_client_cache_bytes",
            "Bytes of manifests and blobs that were sent, by whom they were sent to.",
            ["client", "kind", "result"],
        )
        self._imports = self._counter(
            "cacheproxy_cache_imports",
            "Caches fetched (found), and tags resolved that are not there (not_found).",
            ["client", "result"],
        )
        self._exported = self._counter(
            "cacheproxy_cache_exports",
            "Caches pushed to tags (stored), and those that the tags had already (unchanged).",
            ["client", "result"],
        )
        self._avoided = self._counter(
            "cacheproxy_client_avoided_uploads",
            "Blobs of which a client was told that they are there.",
            ["client"],
        )
        self._avoided_bytes = self._counter(
            "cacheproxy_client_avoided_upload_bytes",
            "The bytes of these, which the client needs not upload.",
            ["client"],
        )
        self._shared_hits = self._counter(
            "cacheproxy_cross_client_hits",
            "Manifests and blobs that another client has pushed, by who found them.",
            ["client", "kind"],
        )

    def _define_storage(self) -> None:
        self._tier_bytes = self._gauge(
            "cacheproxy_tier_bytes", "Bytes of blobs in the tier.", ["tier"], mode="mostrecent"
        )
        self._tier_limit = self._gauge(
            "cacheproxy_tier_limit_bytes", "How many it may have.", ["tier"], mode="mostrecent"
        )
        self._tier_objects = self._gauge(
            "cacheproxy_tier_objects", "Blobs in the tier.", ["tier"], mode="mostrecent"
        )
        self._evictions = self._counter(
            "cacheproxy_tier_evictions", "Blobs evicted from the tier.", ["tier", "reason"]
        )
        self._evicted_bytes = self._counter(
            "cacheproxy_tier_evicted_bytes", "Bytes of these.", ["tier", "reason"]
        )
        # Before the first blob is evicted a rate is 0, and not nothing.
        self._evictions.labels("disk", "space")
        self._evicted_bytes.labels("disk", "space")
        self._s3_requests = self._counter(
            "cacheproxy_s3_requests",
            "Requests sent to S3; code 0 is without an answer.",
            ["operation", "code"],
        )
        self._s3_seconds = self._histogram(
            "cacheproxy_s3_request_duration_seconds",
            "From a request to S3 to its answer, of objects that are streamed to its head.",
            ["operation"],
        )
        self._s3_bytes = self._counter(
            "cacheproxy_s3_bytes", "Bytes of objects sent and received.", ["operation", "direction"]
        )

    def _define_collection(self) -> None:
        self._cycles = self._counter(
            "cacheproxy_gc_runs", "Cycles of collection that this server has begun.", ["result"]
        )
        self._deleted = self._counter(
            "cacheproxy_gc_deleted_objects", "Blobs and manifests that they have deleted."
        )
        self._collected_at = self._gauge(
            "cacheproxy_gc_last_success_timestamp_seconds",
            "When one ended here last, 0 for never: another replica may do it.",
            mode="max",
        )
        for result in ("done", "failed"):
            self._cycles.labels(result)

    def request_began(self, endpoint: str) -> None:
        self._running[endpoint] += 1

    def request_ended(self, report: Report) -> None:
        call, status = report.call, report.status
        self._running[report.endpoint] -= 1
        exchange = self._exchanges.ended(call, status)
        self._tallies[case_of(call, status, exchange)].add(report)
        if call.endpoint in _UPLOADED:
            self._uploaded(call, report)

    async def count(self) -> None:
        """Count what has ended since the last call: now and then, and before it is shown, in the
        thread that tells of requests. Others that wait for it have turns meanwhile."""
        cases = list(self._tallies)
        for start in range(0, len(cases), _AT_ONCE):
            self._count(cases[start : start + _AT_ONCE])
            await asyncio.sleep(0)
        for endpoint, running in self._running.items():
            self._in_progress.labels(endpoint).set(running)
        self._uploading.set(sum(self._running[endpoint] for endpoint in _UPLOADS))

    def _count(self, cases: Sequence[Case]) -> None:
        """Those of the cases that are not counted yet, so that it may be left in between."""
        times: defaultdict[_Histogram, list[float]] = defaultdict(list)
        for case in cases:
            if (tally := self._tallies.pop(case, None)) is not None:
                series = self._series(case)
                series.count(tally)
                times[series.seconds] += tally.seconds
                times[series.first_byte] += tally.first_byte
        for histogram, seconds in times.items():
            histogram.observe_all(seconds)

    def settled(self) -> list[Look]:
        """Looks that no push has followed here; to be asked for now and then, see `unchanged`."""
        return self._exchanges.settled()

    def unchanged(self, look: Look) -> None:
        """No push has followed it anywhere: the tag had what the client would have pushed."""
        self._exchanged_by(look.client)[Exchange.UNCHANGED].inc()

    def _uploaded(self, call: Call, report: Report) -> None:
        if call.endpoint == "end-11" and report.status == 202:
            return  # there was nothing to mount: the upload is still to come
        result = _result(call, report)
        self._blob_uploads.labels(result).inc()
        if size := call.uploaded or call.received:
            self._blob_upload_bytes.labels(result).inc(size)

    def lagged(self, seconds: float) -> None:
        """The event loop was so late."""
        self._lag.observe(seconds)

    def tier_has(self, size: int, objects: int, limit: int) -> None:
        self._tier_bytes.labels("disk").set(size)
        self._tier_objects.labels("disk").set(objects)
        self._tier_limit.labels("disk").set(limit)

    def evicted(self, objects: int, size: int) -> None:
        self._evictions.labels("disk", "space").inc(objects)
        self._evicted_bytes.labels("disk", "space").inc(size)

    def s3_asked(
        self, operation: str, seconds: float, status: int, sent: int, received: int
    ) -> None:
        self._s3_requests.labels(operation, str(status)).inc()
        self._s3_seconds.labels(operation).observe(seconds)
        if sent:
            self._s3_bytes.labels(operation, "sent").inc(sent)
        if received:
            self._s3_bytes.labels(operation, "received").inc(received)

    def collected(self, deleted: int) -> None:
        """A cycle of collection has ended."""
        self._cycles.labels("done").inc()
        self._deleted.inc(deleted)
        self._collected_at.set(time.time())

    def collection_failed(self) -> None:
        self._cycles.labels("failed").inc()

    def exposition(self) -> tuple[bytes, str]:
        """The text to scrape, and its content type. Takes milliseconds: call it in a thread."""
        registry = self._registry
        if self._shared is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._shared)  # type: ignore[no-untyped-call]  # it has no annotations
        return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST

    def _find_series(self, case: Case) -> _Series:
        endpoint, method = case.endpoint, case.method
        requests = [self._requests.labels(endpoint, method, str(case.status))]
        requests += self._looks(case)
        if case.exchange is not None:
            requests.append(self._exchanged_by(case.client)[case.exchange])
        sent = [self._sent.labels(endpoint)]
        if case.found and method == "GET":
            sent.append(self._cache_bytes.labels(case.kind, case.result, case.tier))
            sent.append(self._client_bytes.labels(case.client, case.kind, case.result))
        return _Series(
            requests,
            [self._avoided_bytes.labels(case.client)] if case.avoids_upload else [],
            [self._received.labels(endpoint)],
            sent,
            self._seconds.labels(endpoint, method),
            self._first_byte.labels(endpoint, method),
        )

    def _looks(self, case: Case) -> Iterator[Counter]:
        """Where the looks for something are counted, by what they found."""
        if not case.kind:
            return
        op = case.method.lower()
        yield self._cache_requests.labels(case.kind, op, case.result, case.tier)
        yield self._client_requests.labels(case.client, case.kind, case.result)
        if case.avoids_upload:
            yield self._avoided.labels(case.client)
        if case.shared:
            yield self._shared_hits.labels(case.client, case.kind)

    def _find_exchanges(self, client: str) -> dict[Exchange, Counter]:
        """All of a client's, for a ratio needs those as well that are 0."""
        return {
            Exchange.FOUND: self._imports.labels(client, "found"),
            Exchange.NOT_FOUND: self._imports.labels(client, "not_found"),
            Exchange.STORED: self._exported.labels(client, "stored"),
            Exchange.UNCHANGED: self._exported.labels(client, "unchanged"),
        }

    def _counter(self, name: str, told: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, told, labels, registry=self._registry)

    def _gauge(
        self,
        name: str,
        told: str,
        labels: Sequence[str] = (),
        mode: Literal["livesum", "max", "mostrecent"] = "livesum",
    ) -> Gauge:
        return Gauge(name, told, labels, multiprocess_mode=mode, registry=self._registry)

    def _histogram(
        self,
        name: str,
        told: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = _SECONDS,
    ) -> _Histogram:
        return _Histogram(name, told, labels, buckets=buckets, registry=self._registry)


def _result(call: Call, report: Report) -> str:
    """How the upload of a blob ended."""
    if report.status == 201:
        return "mounted" if call.endpoint == "end-11" else "stored"
    if report.status == CLIENT_GONE:
        return "aborted"
    told = report.error or ""
    return "digest_mismatch" if told.startswith("DIGEST_INVALID") else "failed"
