"""Imports and exports of caches, told from requests."""

from __future__ import annotations

import pytest

from cacheproxy.api.call import Call, Found, Kind
from cacheproxy.exchanges import Exchange, Exchanges
from tests.reports import call_of

_PUSH = "application/vnd.oci.image.manifest.v1+json, */*"
_CACHE = Found(Kind.CACHE_MANIFEST, "hit", "memory", 500, ())
_AT = 1_800_000_000 * 10**9
_IMAGE = Found(Kind.MANIFEST, "hit", "memory", 500, ())


def _call(
    method: str,
    *,
    accept: str = "*/*",
    found: Found | None = None,
    known: bool | None = None,
    tag: str = "cache",
) -> Call:
    call = call_of("end-7" if method == "PUT" else "end-3", method, found=found, Accept=accept)
    call.target, call.known_export = tag, known
    return call


def _settled(exchanges: Exchanges, seconds: float = 60) -> list[tuple[str, str]]:
    """So long after _AT."""
    return [(look.client, look.tag) for look in exchanges.settled(_AT + int(seconds * 1e9))]


def test_an_export_that_nothing_follows_has_changed_nothing() -> None:
    """That is known when the time is over in which it would have been pushed."""
    exchanges = Exchanges()
    assert exchanges.ended(_call("HEAD", accept=_PUSH, found=_CACHE), 200, _AT) is None

    assert _settled(exchanges, 29) == []
    assert _settled(exchanges, 31) == [("one", "cache")]
    assert _settled(exchanges, 31) == []


def test_an_export_that_is_pushed_was_not_unchanged() -> None:
    """The look before it is no exchange of its own."""
    exchanges = Exchanges()
    exchanges.ended(_call("HEAD", accept=_PUSH, found=_CACHE), 200, _AT)

    assert exchanges.ended(_call("PUT", known=False), 201, _AT) is Exchange.STORED
    assert _settled(exchanges) == []


def test_a_push_follows_one_look() -> None:
    """Of builders with one name as many exports have changed nothing as were not pushed."""
    exchanges = Exchanges()
    for tag in ("cache", "cache", "other"):
        exchanges.ended(_call("HEAD", accept=_PUSH, found=_CACHE, tag=tag), 200, _AT)
    exchanges.ended(_call("PUT", known=False), 201, _AT)

    assert _settled(exchanges) == [("one", "cache"), ("one", "other")]


@pytest.mark.parametrize(
    ("call", "status", "told"),
    [
        (_call("PUT", known=True), 201, Exchange.UNCHANGED),
        (_call("PUT", known=False), 201, Exchange.STORED),
        (_call("PUT"), 201, None),
        (_call("GET", found=_CACHE), 200, Exchange.FOUND),
        (_call("GET", accept=_PUSH, found=_CACHE, tag="sha256:0123"), 200, Exchange.FOUND),
        (_call("GET", found=_IMAGE), 200, None),
        (_call("HEAD", found=_CACHE), 200, None),
        (_call("HEAD"), 404, Exchange.NOT_FOUND),
        (_call("HEAD", accept=_PUSH), 404, None),
        (_call("HEAD", tag="sha256:0123"), 404, None),
        (_call("GET", found=_CACHE), 503, None),
        (_call("HEAD"), 503, None),
        (_call("DELETE", found=_CACHE), 202, None),
    ],
)
def test_each_request_is_what_it_is(call: Call, status: int, told: Exchange | None) -> None:
    """Imports fetch a cache, or find none; exports push one to a tag."""
    assert Exchanges().ended(call, status, _AT) is told


def test_looks_that_nothing_follows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at any number of tags takes no more memory for it."""
    monkeypatch.setattr("cacheproxy.exchanges._LOOKS", 2)
    exchanges = Exchanges()
    for tag in ("a", "b", "c"):
        exchanges.ended(_call("HEAD", accept=_PUSH, found=_CACHE, tag=tag), 200, _AT)

    assert _settled(exchanges, 0) == [("one", "a")]
