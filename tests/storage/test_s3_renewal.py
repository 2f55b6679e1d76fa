"""Credentials that end are renewed while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cacheproxy.errors import Unavailable
from cacheproxy.storage.bucket import Head
from cacheproxy.storage.s3 import credentials
from tests.real.seaweed import SeaweedFS
from tests.s3.aws import FakeAws, Key, signed, signed_url
from tests.s3.proxy import S3Proxy
from tests.storage.objects import keys
from tests.storage.s3_buckets import chained, known_key

_NEAR = 300
"""Seconds to the end of a key that are few enough for it to be renewed at once."""

pytestmark = pytest.mark.usefixtures("no_credentials")


@pytest.fixture
async def proxy(seaweed: SeaweedFS) -> AsyncIterator[S3Proxy]:
    async with S3Proxy.running(seaweed.endpoint) as proxy:
        yield proxy


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, renewal is waited for."""
    monkeypatch.setattr(credentials, "_WAIT_SECONDS", 30)


async def test_a_key_that_ends_is_renewed_before(
    seaweed: SeaweedFS, proxy: S3Proxy, aws: FakeAws, web_identity: Path, patient: None
) -> None:
    """In the running server, with the token that the cluster has put there meanwhile."""
    aws.keys = [Key("old", "secret", "", _NEAR), known_key(seaweed, _NEAR)]
    async with chained(seaweed, proxy.url) as bucket:
        with pytest.raises(Unavailable, match="InvalidAccessKeyId"):
            await bucket.put("a", b"content")
        web_identity.write_text("next")
        await bucket.put("a", b"content")
        aws.keys = [Key("older", "secret", "", _NEAR), known_key(seaweed)]
        with pytest.raises(Unavailable, match="InvalidAccessKeyId"):
            await keys(bucket, "")
        assert await keys(bucket, "") == ["a"]
        assert await bucket.head("a") == Head(7)

    used = [signed(call)[0] for call in proxy.calls]
    assert used == ["old", seaweed.access_key, "older", seaweed.access_key, seaweed.access_key]
    assert [token for _, token in aws.assumed] == ["token-of-the-cluster", *["next"] * 3]


async def test_addresses_for_clients_are_signed_with_the_renewed_key(
    seaweed: SeaweedFS, aws: FakeAws, web_identity: Path, patient: None
) -> None:
    """Those are handed out for as long as they say."""
    aws.keys = [Key("first", "secret", "1", _NEAR), Key("second", "secret", "2")]
    async with chained(seaweed) as bucket:
        urls = [await bucket.url("a", 60) for _ in range(2)]

    assert [signed_url(url) for url in urls if url] == [("first", "1"), ("second", "2")]


async def test_a_key_that_cannot_be_renewed_is_an_error_that_passes(
    seaweed: SeaweedFS, aws: FakeAws, web_identity: Path, tried_once: None
) -> None:
    """For our requests and aiobotocore's; when STS gives one again, all goes on."""
    async with chained(seaweed) as bucket:
        with pytest.raises(Unavailable, match="no credentials"):
            await bucket.read("a")
        with pytest.raises(Unavailable, match="no credentials"):
            await keys(bucket, "")
        with pytest.raises(Unavailable, match="no credentials"):
            await bucket.url("a", 60)
        aws.keys = [known_key(seaweed)]
        await bucket.put("a", b"content")


async def test_a_key_is_used_to_its_end_when_it_cannot_be_renewed(
    seaweed: SeaweedFS, aws: FakeAws, web_identity: Path
) -> None:
    """STS may refuse or hang meanwhile."""
    aws.keys = [known_key(seaweed, _NEAR)]
    async with chained(seaweed) as bucket:
        await bucket.put("a", b"content")
        aws.keys = []
        assert await bucket.head("a") == Head(7)
        aws.open.clear()
        assert await bucket.head("a") == Head(7)
        assert await keys(bucket, "") == ["a"]
    assert len(aws.assumed) > 1


async def test_the_first_key_is_fetched_once_for_all_who_wait(
    seaweed: SeaweedFS, aws: FakeAws, web_identity: Path
) -> None:
    """Also for those who ask again, having waited in vain."""
    aws.keys = [known_key(seaweed)]
    aws.open.clear()
    async with chained(seaweed, read_seconds=0.5) as bucket:
        with pytest.raises(Unavailable, match="in time"):
            await asyncio.gather(bucket.head("a"), bucket.head("b"))
        aws.open.set()
        await bucket.put("a", b"content")
    assert len(aws.assumed) == 1
