"""What a request counts as."""

from __future__ import annotations

from typing import Final

import pytest

from cacheproxy.api.call import Found, Kind
from cacheproxy.api.entrance import CLIENT_GONE
from cacheproxy.cases import Answer, Finding, answer_of, finding_of
from tests.reports import call_of

_OF_ANOTHER: Final = Found(Kind.BLOB, "hit", "disk", 10, ("two",))


def test_a_method_that_is_not_known_is_no_label() -> None:
    assert answer_of(call_of("none", "PURGE"), 405) == Answer("none", "other", 405)


def test_a_blob_that_need_not_be_pushed_spares_its_client_work() -> None:
    found = finding_of(call_of("end-2", "HEAD", found=_OF_ANOTHER), 200, None)

    assert found == Finding("one", "HEAD", "blob", "hit", "disk", spared=True, shared=True)


@pytest.mark.parametrize("pushers", [(), ("one",)])
def test_what_no_other_client_has_pushed_is_not_shared(pushers: tuple[str, ...]) -> None:
    found = Found(Kind.BLOB, "hit", "disk", 10, pushers)

    finding = finding_of(call_of("end-2", "GET", found=found), 200, None)
    assert finding is not None
    assert not finding.shared


@pytest.mark.parametrize(("asked", "shared"), [("bytes=0-9", True), ("bytes=5-9", False)])
def test_a_blob_in_several_ranges_is_shared_once(asked: str, shared: bool) -> None:
    finding = finding_of(call_of("end-2", "GET", found=_OF_ANOTHER, Range=asked), 206, None)

    assert finding is not None
    assert finding.shared is shared


def test_what_a_client_has_already_is_not_shared_again() -> None:
    finding = finding_of(call_of("end-2", "GET", found=_OF_ANOTHER), 304, None)

    assert finding is not None
    assert not finding.shared


def test_a_manifest_is_shared_when_it_is_fetched() -> None:
    """Not when it is looked at, for a fetch or a push follows."""
    found = Found(Kind.CACHE_MANIFEST, "hit", "memory", 10, ("two",))
    looked = finding_of(call_of("end-3", "HEAD", found=found), 200, None)
    fetched = finding_of(call_of("end-3", "GET", found=found), 200, None)

    assert looked is not None
    assert fetched is not None
    assert (looked.shared, fetched.shared) == (False, True)


@pytest.mark.parametrize(("status", "result"), [(404, "miss"), (500, "error"), (503, "error")])
def test_what_is_not_there_or_not_to_be_had_is_found_in_no_tier(status: int, result: str) -> None:
    finding = finding_of(call_of("end-2", "GET"), status, None)

    assert finding == Finding("one", "GET", "blob", result, "none")


def test_a_fetch_that_its_client_left_has_found_something() -> None:
    finding = finding_of(call_of("end-2", "GET", found=_OF_ANOTHER), CLIENT_GONE, None)

    assert finding is not None
    assert finding.result == "hit"


@pytest.mark.parametrize(("endpoint", "status"), [("end-2", 400), ("end-2", 401), ("end-7", 201)])
def test_what_is_no_look_finds_nothing(endpoint: str, status: int) -> None:
    assert finding_of(call_of(endpoint, "GET"), status, None) is None
