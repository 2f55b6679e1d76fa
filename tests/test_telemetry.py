"""What a scrape shows, and how much that can be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cacheproxy.api.blobs import _ORIGINS
from cacheproxy.api.call import Found, Kind
from cacheproxy.api.entrance import CLIENT_GONE, Report
from cacheproxy.api.errors import STATUS
from cacheproxy.app import App
from cacheproxy.buildkit.cache import CACHE_CONFIG
from cacheproxy.config import load
from cacheproxy.counting import Counting
from cacheproxy.settings import Config
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.telemetry import Metrics
from tests.readme import README
from tests.reports import report_of

_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "PURGE")
_STATUSES: Final = {200, 201, 202, 204, 206, 304, 307, 500, CLIENT_GONE, *STATUS.values()}

_S3_STATUSES: Final = {0, 200, 204, 206, 304, 400, 403, 404, 409, 411, 412, 416, 429, 500, 501, 503}
_S3_OPERATIONS: Final = {
    *("HeadObject", "GetObject", "PutObject", "CopyObject", "DeleteObject", "ListObjectsV2"),
    *("CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"),
    *("AbortMultipartUpload", "ListMultipartUploads"),
}
"""`test_every_operation_is_known` holds them to the code."""

_MANIFESTS: Final = (("hit", "memory"), ("hit", "s3"), ("hit", "disk"))
_BLOBS: Final = {*_MANIFESTS, *_ORIGINS.values()}


async def test_there_are_as_many_series_as_the_readme_says(tmp_path: Path) -> None:
    """All that a server with one client can show after any number of requests of any kind."""
    metrics = Metrics()
    counting = Counting(metrics)
    for report in _reports(_routed(tmp_path)):
        counting.request_ended(report)
    metrics.lagged(0)
    metrics.tier_has(0, 0, 0)
    for operation in _S3_OPERATIONS:
        for status in _S3_STATUSES:
            metrics.s3_asked(operation, 0, status, 1, 1)
    await counting.count()

    lines = metrics.exposition()[0].decode().splitlines()
    series = [line for line in lines if not line.startswith("#")]
    of_client = [line for line in series if 'client="one"' in line]
    others = len(series) - len(of_client)
    most = len(of_client) * (Config().clients.names + 2) + others
    told = f"at most {len(of_client)} series for each client and {others:,} others"
    assert f"{told}, so at most {most:,} with {Config().clients.names} names" in README


def test_every_operation_is_known() -> None:
    """Whatever S3 is asked for is among those that were counted."""
    rooms = Path(__file__).parent.parent / "cacheproxy" / "storage"
    text = "\n".join(path.read_text() for path in rooms.rglob("*.py"))
    found = set(
        re.findall(r'"((?:[A-Z][a-z]+)+(?:Object|ObjectsV2|Upload|Uploads|Part|PartCopy))"', text)
    )

    assert found - {"MultipartUpload"} == _S3_OPERATIONS


def _routed(folder: Path) -> set[tuple[str, str]]:
    """Endpoints and the methods that they can be asked by."""
    app = App(load({}, {"HOME": str(folder)}), FolderBucket(str(folder)), b"secret")
    routes = app.entrance._routes.values()
    known = {(route.endpoint, method) for each in routes for method, route in each.items()}
    inner = {("end-4b", "POST"), ("end-11", "POST")}  # of an endpoint that begins as another
    return known | inner | {("none", method) for method in _METHODS}


def _reports(routed: set[tuple[str, str]]) -> Iterator[Report]:
    for endpoint, method in routed:
        for status in _STATUSES:
            yield report_of(endpoint, method, status)
    for method in ("GET", "HEAD"):
        for kind in (Kind.MANIFEST, Kind.CACHE_MANIFEST):
            for outcome in _MANIFESTS:
                yield report_of("end-3", method, 200, found=_found(kind, *outcome))
        for kind in (Kind.CONFIG, Kind.BLOB):
            for outcome in _BLOBS:
                yield report_of("end-2", method, 200, found=_found(kind, *outcome))
        for status in _STATUSES:
            yield report_of("end-2", method, status, accept=f"{CACHE_CONFIG}, */*")
    yield report_of("end-6", "PUT", 400, error="DIGEST_INVALID: it is another")


def _found(kind: Kind, result: str, tier: str) -> Found:
    return Found(kind, result, tier, 1, ("two",))
