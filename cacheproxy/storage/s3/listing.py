"""Listings of S3: pages of objects and prefixes, and of uploads that were left."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from cacheproxy.storage.bucket import Listed
from cacheproxy.storage.s3.requests import S3Requests


async def listed(
    requests: S3Requests, prefix: str, after: str, folders: bool
) -> AsyncIterator[Listed]:
    """See `Bucket.list`; the keys are whole ones here."""
    params: dict[str, Any] = {"Prefix": prefix}
    if after > prefix:
        params["StartAfter"] = after
    if folders:
        params["Delimiter"] = "/"
    async for page in _pages(requests, params):
        for each in page:
            # A prefix that is `after` itself still has keys behind it, for S3.
            if each.key > after:
                yield each


async def walked(
    requests: S3Requests, prefix: str, after: str, folders: bool
) -> AsyncIterator[Listed]:
    """The same where S3 is a tree of folders, lists in their order, and keeps them when empty."""
    level = [each async for page in _pages(requests, _level(prefix)) for each in page]
    for each in sorted(level, key=_key):
        if not each.key.endswith("/"):
            if each.key > after:
                yield each
        elif folders:
            if each.key > after and await _holds_any(requests, each.key):
                yield each
        elif each.key > after or after.startswith(each.key):
            async for deeper in walked(requests, each.key, after, folders):
                yield deeper


async def _holds_any(requests: S3Requests, prefix: str) -> bool:
    async for page in _pages(requests, {"Prefix": prefix, "MaxKeys": 2}):
        if page:
            return True
    return False


def _level(prefix: str) -> dict[str, Any]:
    return {"Prefix": prefix, "Delimiter": "/"}


async def _pages(requests: S3Requests, params: dict[str, Any]) -> AsyncIterator[list[Listed]]:
    while True:
        called = await requests.call("ListObjectsV2", params, requests.options.read_seconds)
        objects = called.found.get("Contents", ())
        # A key that ends in a slash is no key, but the mark of a folder.
        found = [
            Listed(each["Key"], each["Size"], each["LastModified"].timestamp())
            for each in objects
            if each["Key"][-1] != "/"
        ]
        found += [Listed(each["Prefix"]) for each in called.found.get("CommonPrefixes", ())]
        yield sorted(found, key=_key)
        if not called.found.get("IsTruncated"):
            return
        params = params | {"ContinuationToken": called.found["NextContinuationToken"]}


def _key(listed: Listed) -> str:
    return listed.key


async def sweep(requests: S3Requests, prefix: str, seconds: float) -> int:
    """Abort multipart uploads begun at least so long ago, by the bucket's clock."""
    aborted = 0
    async for upload, now in _uploads(requests, prefix):
        if now - upload["Initiated"] >= timedelta(seconds=seconds):
            await requests.call(
                "AbortMultipartUpload",
                {"Key": upload["Key"], "UploadId": upload["UploadId"]},
                requests.options.write_seconds,
                expect=frozenset({404}),
            )
            aborted += 1
    return aborted


async def _uploads(
    requests: S3Requests, prefix: str
) -> AsyncIterator[tuple[dict[str, Any], datetime]]:
    params: dict[str, Any] = {"Prefix": prefix}
    while True:
        called = await requests.call("ListMultipartUploads", params, requests.options.write_seconds)
        headers = called.found["ResponseMetadata"]["HTTPHeaders"]
        now = parsedate_to_datetime(headers["date"])
        for upload in called.found.get("Uploads", ()):
            yield upload, now
        if not called.found.get("IsTruncated"):
            return
        params["KeyMarker"] = called.found["NextKeyMarker"]
        params["UploadIdMarker"] = called.found["NextUploadIdMarker"]
