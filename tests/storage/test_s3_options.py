"""What is sent for what is set."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from cacheproxy.errors import StorageInvalid, Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.storage.s3.bucket import S3Bucket
from tests.real.seaweed import SeaweedFS
from tests.s3.calls import Call
from tests.s3.proxy import S3Proxy
from tests.storage.s3_buckets import PART, opened

_LARGE = b"x" * (PART + 1)


@pytest.fixture
async def proxy(seaweed: SeaweedFS) -> AsyncIterator[S3Proxy]:
    async with S3Proxy.running(seaweed.endpoint) as proxy:
        yield proxy


async def _push(bucket: S3Bucket, folder: Path, data: bytes) -> None:
    path = folder / "file"
    path.write_bytes(data)
    async with bucket.upload(str(path), "a/b", len(data)) as upload:
        await upload.commit(digest_of(data), len(data))


async def _calls(
    seaweed: SeaweedFS, proxy: S3Proxy, folder: Path, **changes: Any
) -> dict[str, Call]:
    """What is sent for a record, a small and a large upload; the last call of each operation."""
    async with opened(seaweed, endpoint_url=proxy.url, **changes) as bucket:
        await bucket.put("a/b", b"record")
        await _push(bucket, folder, b"small")
        await _push(bucket, folder, _LARGE)
    return {call.operation: call for call in proxy.calls}


def _amz(call: Call) -> dict[str, str]:
    names = ("server-side-encryption", "server-side-encryption-aws-kms-key-id", "storage-class")
    found = {name: call.headers.get(f"x-amz-{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({}, {}),
        ({"sse": "AES256"}, {"server-side-encryption": "AES256"}),
        ({"storage_class": "STANDARD_IA"}, {"storage-class": "STANDARD_IA"}),
    ],
)
async def test_objects_are_created_as_set(
    seaweed: SeaweedFS,
    proxy: S3Proxy,
    tmp_path: Path,
    changes: dict[str, Any],
    sent: dict[str, str],
) -> None:
    """By one request or several."""
    calls = await _calls(seaweed, proxy, tmp_path, **changes)

    assert _amz(calls["PutObject"]) == sent
    assert _amz(calls["CreateMultipartUpload"]) == sent
    assert _amz(calls["UploadPart"]) == {}


async def test_a_key_of_kms_is_named_where_objects_are_created(
    seaweed: SeaweedFS, proxy: S3Proxy, tried_once: None
) -> None:
    """SeaweedFS has no KMS, so it is only shown what was sent, and that the signature covers it."""
    changes: dict[str, Any] = {"sse": "aws:kms", "kms_key_id": "key-1"}
    async with opened(seaweed, endpoint_url=proxy.url, **changes) as bucket:
        with contextlib.suppress(Unavailable):
            await bucket.put("a/b", b"x")
    call = proxy.calls[0]

    assert _amz(call) == {
        "server-side-encryption": "aws:kms",
        "server-side-encryption-aws-kms-key-id": "key-1",
    }
    assert "x-amz-server-side-encryption-aws-kms-key-id" in call.target


@pytest.mark.parametrize(
    ("checksums", "put", "part"),
    [("auto", b"small", None), ("required", b"small", _LARGE[-1:]), ("off", None, None)],
)
async def test_checksums_are_sent_as_set(
    seaweed: SeaweedFS,
    proxy: S3Proxy,
    tmp_path: Path,
    checksums: str,
    put: bytes | None,
    part: bytes | None,
) -> None:
    """What is known anyway is sent, what has to be computed only if required."""
    calls = await _calls(seaweed, proxy, tmp_path, checksums=checksums)
    parts = {
        call.headers.get("x-amz-checksum-sha256")
        for call in proxy.calls
        if call.operation == "UploadPart"
    }

    assert calls["PutObject"].headers.get("x-amz-checksum-sha256") == _sha256(put)
    assert _sha256(part) in parts
    assert ("x-amz-checksum-algorithm" in calls["CreateMultipartUpload"].headers) == bool(part)


async def test_a_url_gives_the_object_to_anybody_for_its_time(
    seaweed: SeaweedFS, proxy: S3Proxy
) -> None:
    """Also a part of it; it names the host that clients reach."""
    async with opened(seaweed, public_endpoint_url=proxy.url) as bucket:
        await bucket.put("a/b", b"content")
        url = await bucket.url("a/b", 77)
        assert url is not None
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={"Range": "bytes=1-3"}) as response,
        ):
            assert response.status == 206
            assert await response.read() == b"ont"

    assert url.startswith(proxy.url)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["77"]


async def test_a_ca_file_that_is_none_is_refused(seaweed: SeaweedFS, tmp_path: Path) -> None:
    """Before anything is asked."""
    with pytest.raises(StorageInvalid, match="holds no certificates"):
        async with opened(seaweed, ca_file=str(tmp_path / "absent")):
            raise AssertionError


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(hashlib.sha256(data).digest()).decode()
