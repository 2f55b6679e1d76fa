"""What the process says: structured lines, one of them for each request."""

import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec
import structlog

from cacheproxy.access.policy import Action

if TYPE_CHECKING:  # who logs without answering requests need not import what that takes
    from cacheproxy.api.call import Call
    from cacheproxy.api.entrance import Report


def _told(value: object) -> str:
    """What JSON has no form for; names and digests are texts of their own types."""
    return str(value) if isinstance(value, str) else repr(value)


_encode: Final = msgspec.json.Encoder(enc_hook=_told).encode


class RequestLog:
    """Writes the one line of each request. Made after `configure_logging`, whose logger it keeps.

    No header but the ones below, and never a query, is logged. What was pushed or deleted, and who
    was refused that, is told in a line of its own, for audits.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger().bind()

    def request_ended(self, report: "Report") -> None:
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
            client=call.client,
            address=call.address,
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
                status=report.done,
                client=call.client,
                address=call.address,
                trace=headers.get("traceparent", "")[3:35] or None,
            )


def _reference(call: "Call") -> str | None:
    """The tag or digest by which it was pushed or deleted; an upload has a session there."""
    return None if call.endpoint == "end-6" else call.target or None


def _is_audited(report: "Report") -> bool:
    """Whether something was stored or deleted by this, though nobody may have waited to hear it, or
    whoever wanted to was refused it."""
    if report.action not in (Action.PUSH, Action.DELETE):
        return False
    if report.done == 403:
        return True
    # The steps of an upload, which stores a blob when it ends, are answered otherwise.
    return report.done == 201 or (report.action is Action.DELETE and report.done < 300)


def configure_logging(level: str, *, terminal: bool = False, to: TextIO | None = None) -> None:
    """Lines for people on a terminal, else JSON, on standard output if `to` is no other file.

    The standard library's loggers (aiohttp's and asyncio's) come out in the same form.
    """
    to = to or sys.stdout
    processors: list[Any] = [_json_line]
    if terminal:
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        processors = [structlog.processors.add_log_level, stamp, structlog.dev.ConsoleRenderer()]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(to)
        if terminal
        else structlog.BytesLoggerFactory(to.buffer),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors, _text]
    )
    handler = logging.StreamHandler(to)
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
