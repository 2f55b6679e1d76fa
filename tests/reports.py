"""Requests as they are told of when they have ended, without a server."""

from __future__ import annotations

from types import SimpleNamespace

from cacheproxy.access.policy import Action
from cacheproxy.api.call import Call, Found
from cacheproxy.api.entrance import Report
from cacheproxy.oci.reference import Repository


class _Request(SimpleNamespace):
    """As much of one as is asked for."""


def call_of(endpoint: str, method: str, *, found: Found | None = None, **headers: str) -> Call:
    """Of a client called `one`, with a byte in each direction."""
    request = _Request(method=method, headers={"Accept": "*/*"} | headers)
    call = Call(request, endpoint, Repository("ci/app"), "tag")  # type: ignore[arg-type]  # a stand-in
    call.client, call.found, call.sent, call.received = "one", found, 1, 1
    return call


def report_of(
    endpoint: str,
    method: str,
    status: int,
    *,
    accept: str = "*/*",
    found: Found | None = None,
    error: str | None = None,
    seconds: float = 0,
    at: int = 0,
) -> Report:
    call = call_of(endpoint, method, found=found, Accept=accept)
    return Report(call, Action.PULL, None, status, status, at, seconds, seconds, error)
