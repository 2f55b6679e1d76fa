"""Requests are summed up, and each is counted once."""

from __future__ import annotations

import asyncio
import weakref
from typing import Final

from cacheproxy.api.call import Call, Found, Kind
from cacheproxy.api.entrance import Report
from cacheproxy.counting import Counting
from cacheproxy.telemetry import Metrics
from tests.reports import call_of, report_of

_SECONDS: Final = "cacheproxy_http_request_duration_seconds"
_CACHE: Final = Found(Kind.CACHE_MANIFEST, "hit", "memory", 500, ())
_PUSHES: Final = "application/vnd.oci.image.manifest.v1+json, */*"
_HEADS: Final = 'endpoint="end-3",method="HEAD"'


def _look(*, at: int) -> Report:
    """Of who has an export for the tag."""
    return report_of("end-3", "HEAD", 200, accept=_PUSHES, found=_CACHE, at=at)


async def test_of_an_exchange_the_other_results_are_shown_too() -> None:
    """As 0: what share of the imports found a cache is known from the first one on."""
    metrics = Metrics()
    counting = Counting(metrics)
    counting.request_ended(report_of("end-3", "HEAD", 404))
    await counting.count()

    text = metrics.exposition()[0].decode()
    assert 'cacheproxy_cache_imports_total{client="one",result="not_found"} 1.0' in text
    assert 'cacheproxy_cache_imports_total{client="one",result="found"} 0.0' in text
    assert 'cacheproxy_cache_exports_total{client="one",result="unchanged"} 0.0' in text


async def test_counting_that_is_broken_off_loses_nothing() -> None:
    """Or that two do at once: each request is counted once."""
    metrics = Metrics()
    counting = Counting(metrics)
    for status in range(200, 299):
        counting.request_ended(report_of("end-3", "HEAD", status))
    broken = asyncio.create_task(counting.count())
    await asyncio.sleep(0)
    broken.cancel()
    await asyncio.gather(broken, return_exceptions=True)
    await asyncio.gather(counting.count(), counting.count())

    text = metrics.exposition()[0].decode()
    assert text.count('cacheproxy_http_requests_total{code="2') == 99
    assert f"{_SECONDS}_count{{{_HEADS}}} 99.0" in text


async def test_requests_are_counted_by_how_long_they_took() -> None:
    """A bucket takes what is as long as its bound, and what is longer goes on to the next."""
    metrics = Metrics()
    counting = Counting(metrics)
    for seconds in (0.0005, 0.001, 0.002, 400):
        counting.request_ended(report_of("end-3", "HEAD", 200, seconds=seconds))
    await counting.count()

    text = metrics.exposition()[0].decode()
    for bound, count in (("0.001", 2), ("0.005", 3), ("300.0", 3), ("+Inf", 4)):
        assert f'{_SECONDS}_bucket{{endpoint="end-3",le="{bound}",method="HEAD"}} {count}.0' in text
    assert f"{_SECONDS}_sum{{{_HEADS}}} 400.0035" in text


def test_an_export_that_changed_nothing_is_told_with_the_time_at_which_it_ended() -> None:
    """Though it was summed up later: who pushed to the tag since then is asked for."""
    counting = Counting(Metrics())
    counting.request_ended(_look(at=7))

    assert [look.at for look in counting.settled()] == [7]


def test_a_push_that_has_ended_just_now_follows_its_look() -> None:
    counting = Counting(Metrics())
    counting.request_ended(_look(at=7))
    push = report_of("end-7", "PUT", 201)
    push.call.known_export = False
    counting.request_ended(push)

    assert counting.settled() == []


def test_no_more_requests_are_kept_than_a_few() -> None:
    """All that they hold, headers and connections, is freed while others come."""
    counting = Counting(Metrics())
    calls = []
    for _ in range(100):
        report = report_of("end-2", "HEAD", 200)
        calls.append(weakref.ref(report.call.request))
        counting.request_ended(report)
        del report

    assert len([call for call in calls if call() is not None]) < 20


async def test_what_was_counted_is_not_counted_again() -> None:
    metrics = Metrics()
    counting = Counting(metrics)
    found = Found(Kind.BLOB, "hit", "disk", 10, ("two",))
    for _ in range(3):
        counting.request_ended(report_of("end-2", "HEAD", 200, found=found))
        await counting.count()

    text = metrics.exposition()[0].decode()
    assert 'cacheproxy_client_avoided_upload_bytes_total{client="one"} 30.0' in text
    assert 'cacheproxy_cross_client_hits_total{client="one",kind="blob"} 3.0' in text
    assert f'{_SECONDS}_count{{endpoint="end-2",method="HEAD"}} 3.0' in text


async def test_those_that_are_answered_are_shown_until_they_have_ended() -> None:
    metrics = Metrics()
    running: set[Call] = {call_of("end-5", "PATCH"), call_of("end-3", "GET")}
    counting = Counting(metrics, running)
    await counting.count()
    text = metrics.exposition()[0].decode()
    assert 'cacheproxy_http_requests_in_progress{endpoint="end-3"} 1.0' in text
    assert "cacheproxy_uploads_in_progress 1.0" in text

    running.clear()
    counting.request_ended(report_of("end-3", "GET", 200))
    counting.request_ended(report_of("end-5", "PATCH", 202))
    await counting.count()
    text = metrics.exposition()[0].decode()
    assert 'cacheproxy_http_requests_in_progress{endpoint="end-3"} 0.0' in text
    assert "cacheproxy_uploads_in_progress 0.0" in text
