"""What a request counts as."""

from __future__ import annotations

from typing import Final

import pytest

from cacheproxy.api.call import Found, Kind
from cacheproxy.api.entrance import CLIENT_GONE
from cacheproxy.cases import Case, case_of
from tests.reports import call_of

_OF_ANOTHER: Final = Found(Kind.BLOB, "hit", "disk", 10, ("two",))


def test_a_method_that_is_not_known_is_no_label() -> None:
    assert case_of(call_of("none", "PURGE"), 405, None) == Case("none", "other", 405)


def test_a_blob_that_need_not_be_pushed_spares_its_client_work() -> None:
    case = case_of(call_of("end-2", "HEAD", found=_OF_ANOTHER), 200, None)

    assert case == Case("end-2", "HEAD", 200, "blob", "hit", "disk", spared=True, shared=True)


@pytest.mark.parametrize("pushers", [(), ("one",)])
def test_what_no_other_client_has_pushed_is_not_shared(pushers: tuple[str, ...]) -> None:
    found = Found(Kind.BLOB, "hit", "disk", 10, pushers)

    assert not case_of(call_of("end-2", "GET", found=found), 200, None).shared


@pytest.mark.parametrize(("asked", "shared"), [("bytes=0-9", True), ("bytes=5-9", False)])
def test_a_blob_in_several_ranges_is_shared_once(asked: str, shared: bool) -> None:
    case = case_of(call_of("end-2", "GET", found=_OF_ANOTHER, Range=asked), 206, None)

    assert case.shared is shared


def test_what_a_client_has_already_is_not_shared_again() -> None:
    assert not case_of(call_of("end-2", "GET", found=_OF_ANOTHER), 304, None).shared


def test_a_manifest_is_shared_when_it_is_fetched() -> None:
    """Not when it is looked at, for a fetch or a push follows."""
    found = Found(Kind.CACHE_MANIFEST, "hit", "memory", 10, ("two",))
    looked = case_of(call_of("end-3", "HEAD", found=found), 200, None)
    fetched = case_of(call_of("end-3", "GET", found=found), 200, None)

    assert (looked.shared, fetched.shared) == (False, True)


@pytest.mark.parametrize(("status", "result"), [(404, "miss"), (500, "error"), (503, "error")])
def test_what_is_not_there_or_not_to_be_had_is_found_in_no_tier(status: int, result: str) -> None:
    case = case_of(call_of("end-2", "GET"), status, None)

    assert case == Case("end-2", "GET", status, "blob", result, "none")


def test_a_fetch_that_its_client_left_has_found_something() -> None:
    case = case_of(call_of("end-2", "GET", found=_OF_ANOTHER), CLIENT_GONE, None)

    assert case.result == "hit"


@pytest.mark.parametrize(("endpoint", "status"), [("end-2", 400), ("end-2", 401), ("end-7", 201)])
def test_what_is_no_look_finds_nothing(endpoint: str, status: int) -> None:
    assert case_of(call_of(endpoint, "GET"), status, None) == Case(endpoint, "GET", status)
