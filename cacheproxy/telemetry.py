"""Every metric, defined once.

At most `clients.names` and two more clients have series of their own, all other labels have few
values: see README, "Metrics", for how many series that are.
"""

import sys
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Sequence
from functools import partial
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
from cacheproxy.api.call import Kind
from cacheproxy.cases import Case
from cacheproxy.exchanges import Exchange

# Without them a scrape is half as long, and nobody draws when a series began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

SECONDS: Final = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""Up to these, what took long is told apart."""
_IMPORTS: Final = frozenset({Exchange.FOUND, Exchange.NOT_FOUND})
_LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class _Histogram(Histogram):
    """Takes many observations at once."""

    def observe_all(self, seconds: Sequence[float]) -> None:
        for bucket, count in Tally(map(partial(bisect_left, SECONDS), seconds)).items():
            self._buckets[bucket].inc(count)
        self._sum.inc(sum(seconds))


class Metrics:
    """The metrics of one process, or with `shared` (a folder) of all that share the folder.

    prometheus_client picks its kind of values when it is imported, so the folder must be in the
    environment before that: see `workers.py`.
    """

    def __init__(self, shared: str | None = None) -> None:
        self._registry = CollectorRegistry()
        self._shared = shared
        self._exchanging: set[str] = set()
        self._define_http()
        self._define_cache()
        self._define_clients()
        self._define_storage()
        self._define_collection()

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

    def answered(self, case: Case, requests: int, received: int, sent: int) -> None:
        """So many of a case, that brought and took so many bytes."""
        self._requests.labels(case.endpoint, case.method, str(case.status)).inc(requests)
        self._received.labels(case.endpoint).inc(received)
        self._sent.labels(case.endpoint).inc(sent)

    def took(self, case: Case, seconds: Sequence[float], first_byte: Sequence[float]) -> None:
        self._seconds.labels(case.endpoint, case.method).observe_all(seconds)
        self._first_byte.labels(case.endpoint, case.method).observe_all(first_byte)

    def found(self, case: Case, client: str, requests: int, sent: int, size: int) -> None:
        """So many of a case that one client has sent, that took so many bytes, of as many as the
        `size` of all that was found."""
        kind, result, tier = case.kind, case.result, case.tier
        if kind:
            self._cache_requests.labels(kind, case.method.lower(), result, tier).inc(requests)
            self._client_requests.labels(client, kind, result).inc(requests)
        if kind and tier != "none" and case.method == "GET":
            self._cache_bytes.labels(kind, result, tier).inc(sent)
            self._client_bytes.labels(client, kind, result).inc(sent)
        if case.spared:
            self._avoided.labels(client).inc(requests)
            self._avoided_bytes.labels(client).inc(size)
        if case.shared:
            self._shared_hits.labels(client, kind).inc(requests)
        if case.exchange is not None:
            self.exchanged(client, case.exchange, requests)

    def exchanged(self, client: str, exchange: Exchange, requests: int = 1) -> None:
        if client not in self._exchanging:
            self._exchanging.add(client)
            for each in Exchange:  # for a ratio needs those as well that are 0
                self._exchanges(client, each)
        self._exchanges(client, exchange).inc(requests)

    def running(self, endpoint: str, requests: int) -> None:
        """So many are being answered."""
        self._in_progress.labels(endpoint).set(requests)

    def uploading(self, requests: int) -> None:
        self._uploading.set(requests)

    def uploaded(self, result: str, size: int) -> None:
        """The upload of a blob, or of as much as `size` of it, has ended."""
        self._blob_uploads.labels(result).inc()
        if size:
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

    def _exchanges(self, client: str, exchange: Exchange) -> Counter:
        counter = self._imports if exchange in _IMPORTS else self._exported
        return counter.labels(client, exchange.value)

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
        buckets: Sequence[float] = SECONDS,
    ) -> _Histogram:
        return _Histogram(name, told, labels, buckets=buckets, registry=self._registry)
