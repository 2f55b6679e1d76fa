"""What the process tells of itself: structured logs, and every metric, defined once."""

import logging
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
import structlog
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
from cacheproxy.access.policy import Action
from cacheproxy.api.call import Call
from cacheproxy.api.entrance import Report

# Without them a scrape is half as long, and nobody draws when a series began.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode

# Steps of an upload, which stores a blob when it ends.
_STEPS: Final = frozenset({"end-4a", "end-5", "end-13", "end-14"})

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class _Children:
    """The series that one kind of request adds to."""

    requests: Counter
    seconds: Histogram
    first_byte: Histogram
    received: Counter
    sent: Counter


class Metrics:
    """The metrics of one process, or with `shared` (a folder) of all that share the folder.

    prometheus_client picks its kind of values when it is imported, so the folder must be in the
    environment before that: see `workers.py`.
    """

    def __init__(self, shared: str | None = None) -> None:
        self._registry = CollectorRegistry()
        self._shared = shared
        registry = self._registry
        self._requests = Counter(
            "cacheproxy_http_requests",
            "Requests answered, by the spec's number of the endpoint.",
            ["endpoint", "method", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cacheproxy_http_request_duration_seconds",
            "From the head of a request to the last byte of its answer.",
            ["endpoint", "method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_byte = Histogram(
            "cacheproxy_http_time_to_first_byte_seconds",
            "From the head of a request to the head of its answer.",
            ["endpoint", "method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_progress = Gauge(
            "cacheproxy_http_requests_in_progress",
            "Requests that are being answered.",
            ["endpoint"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._received = Counter(
            "cacheproxy_http_request_bytes",
            "Bytes of request bodies.",
            ["endpoint"],
            registry=registry,
        )
        self._sent = Counter(
            "cacheproxy_http_response_bytes",
            "Bytes of answers' bodies.",
            ["endpoint"],
            registry=registry,
        )
        build = Gauge(
            "cacheproxy_build_info",
            "Always 1; the labels tell what is running.",
            ["version", "python"],
            multiprocess_mode="max",
            registry=registry,
        )
        build.labels(__version__, sys.version.split()[0]).set(1)
        # Looking children up costs more than counting does.
        self._running = lru_cache(100)(self._find_running)
        self._children = lru_cache(1000)(self._find_children)

    def request_began(self, endpoint: str) -> None:
        self._running(endpoint).inc()

    def request_ended(self, report: Report) -> None:
        call = report.call
        self._running(report.endpoint).dec()
        children = self._children(call.endpoint, call.request.method, report.status)
        children.requests.inc()
        children.seconds.observe(report.seconds)
        children.first_byte.observe(report.first_byte_seconds)
        if call.received:
            children.received.inc(call.received)
        if call.sent:
            children.sent.inc(call.sent)

    def _find_running(self, endpoint: str) -> Gauge:
        return self._in_progress.labels(endpoint)

    def _find_children(self, endpoint: str, method: str, status: int) -> _Children:
        if method not in _METHODS:  # clients choose them freely; a label must not
            method = "other"
        return _Children(
            self._requests.labels(endpoint, method, str(status)),
            self._seconds.labels(endpoint, method),
            self._first_byte.labels(endpoint, method),
            self._received.labels(endpoint),
            self._sent.labels(endpoint),
        )

    def exposition(self) -> tuple[bytes, str]:
        """The text to scrape, and its content type. Takes milliseconds: call it in a thread."""
        registry = self._registry
        if self._shared is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._shared)  # type: ignore[no-untyped-call]  # it has no annotations
        return exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST


class RequestLog:
    """Writes the one line of each request. Made after `configure_logging`, whose logger it keeps.

    No header but the ones below, and never a query, is logged. What was pushed or deleted, and who
    was refused that, is told in a line of its own, for audits.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger().bind()

    def request_ended(self, report: Report) -> None:
        call, request = report.call, report.call.request
        headers = request.headers
        self._log.info(
            "request",
            endpoint=call.endpoint,
            method=request.method,
            path=request.raw_path.partition("?")[0],
            status=report.status,
            seconds=report.seconds,
            first_byte=report.first_byte_seconds,
            received=call.received,
            sent=call.sent,
            user=call.identity.user,
            client=request.remote,
            agent=headers.get("User-Agent"),
            trace=headers.get("traceparent", "")[3:35] or None,
            error=report.error,
        )
        if _is_audited(report):
            self._log.info(
                "audit",
                user=call.identity.user,
                action=report.action.value if report.action else None,
                repository=call.name,
                reference=_reference(call),
                digest=report.digest,
                endpoint=call.endpoint,
                status=report.status,
                client=request.remote,
                trace=headers.get("traceparent", "")[3:35] or None,
            )


def _reference(call: Call) -> str | None:
    """The tag or digest by which it was pushed or deleted; an upload has a session there."""
    return None if call.endpoint == "end-6" else call.target or None


def _is_audited(report: Report) -> bool:
    """Whether something was stored or deleted by this, or whoever wanted to was refused it."""
    if report.action not in (Action.PUSH, Action.DELETE):
        return False
    if report.status == 403:
        return True
    return report.status < 300 and report.call.endpoint not in _STEPS


def configure_logging(level: str, terminal: bool) -> None:
    """Lines for people on a terminal, else JSON, on standard output.

    The standard library's loggers (aiohttp's and asyncio's) come out in the same form.
    """
    processors: list[Any] = [_json_line]
    if terminal:
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        processors = [structlog.processors.add_log_level, stamp, structlog.dev.ConsoleRenderer()]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory()
        if terminal
        else structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors, _text]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def _json_line(logger: Any, level: str, event: Any) -> bytes:
    """The whole chain of processors in one: chained, they cost as much as answering a HEAD."""
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    return _encode(event)


def _text(logger: Any, level: str, line: Any) -> str:
    """What the standard library's handlers write."""
    return line.decode() if isinstance(line, bytes) else line


def on_terminal() -> bool:
    return os.isatty(sys.stdout.fileno())
