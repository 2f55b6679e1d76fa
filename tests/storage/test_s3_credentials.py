"""Where credentials come from, and that the ones that end are renewed while the server runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cacheproxy.errors import StorageInvalid, Unavailable
from cacheproxy.storage.s3.probe import probe
from tests.real.seaweed import SeaweedFS
from tests.s3.aws import ROLE, FakeAws, Key, signed, signed_url
from tests.s3.proxy import S3Proxy
from tests.storage.objects import keys
from tests.storage.s3_buckets import chained, known_key

pytestmark = pytest.mark.usefixtures("no_credentials", "tried_once")


@pytest.fixture
async def proxy(seaweed: SeaweedFS) -> AsyncIterator[S3Proxy]:
    async with S3Proxy.running(seaweed.endpoint) as proxy:
        yield proxy


async def _is_used(seaweed: SeaweedFS, url: str | None = None) -> None:
    """By requests that we send, and by those that aiobotocore sends."""
    async with chained(seaweed, url) as bucket:
        await bucket.put("a", b"content")
        assert await keys(bucket, "") == ["a"]


async def test_keys_of_the_environment_are_used(
    seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects are there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_key)

    await _is_used(seaweed)


async def test_the_profile_that_is_named_is_used(
    seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not another one in the file."""
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
        f"[ours]\naws_access_key_id = {seaweed.access_key}\n"
        f"aws_secret_access_key = {seaweed.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "ours")

    await _is_used(seaweed)


async def test_a_web_identity_is_exchanged_for_a_key(
    seaweed: SeaweedFS, proxy: S3Proxy, aws: FakeAws, web_identity: Path
) -> None:
    """Once, as long as it lasts."""
    aws.keys = [known_key(seaweed)]

    await _is_used(seaweed, proxy.url)

    assert aws.assumed == [(ROLE, "token-of-the-cluster")]


async def test_the_role_of_the_instance_is_used(
    seaweed: SeaweedFS, aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the second version of the metadata service, for the first is often off."""
    aws.keys = [known_key(seaweed)]
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url)

    await _is_used(seaweed)


async def test_the_token_of_a_temporary_key_goes_with_every_request(
    seaweed: SeaweedFS, proxy: S3Proxy, aws: FakeAws, web_identity: Path
) -> None:
    """SeaweedFS knows none, so it is only shown what was sent."""
    aws.keys = [Key("temporary", "secret", "token")]
    async with chained(seaweed, proxy.url) as bucket:
        with pytest.raises(Unavailable):
            await bucket.put("a", b"content")
        with pytest.raises(Unavailable):
            await keys(bucket, "")
        url = await bucket.url("a", 60)

    assert [signed(call) for call in proxy.calls] == [("temporary", "token")] * 2
    assert url is not None
    assert signed_url(url) == ("temporary", "token")


async def test_an_identity_that_is_refused_is_said_in_one_sentence(
    seaweed: SeaweedFS, aws: FakeAws, web_identity: Path
) -> None:
    """It is STS that has refused it, and why."""
    assert re.fullmatch("no AWS credentials could be had: .*AccessDenied.*", await _told(seaweed))


async def test_a_key_that_has_ended_is_said_in_one_sentence(
    seaweed: SeaweedFS, aws: FakeAws, web_identity: Path
) -> None:
    """As it looks to a machine whose clock is wrong."""
    aws.keys = [known_key(seaweed, -60)]

    assert re.fullmatch("no AWS credentials could be had: .* expired.*", await _told(seaweed))


async def test_a_token_that_is_not_there_is_said_in_one_sentence(
    seaweed: SeaweedFS, aws: FakeAws, web_identity: Path
) -> None:
    """By the name of its file."""
    web_identity.unlink()

    says = f"no AWS credentials could be had: .*{re.escape(str(web_identity))}.*"
    assert re.fullmatch(says, await _told(seaweed))


async def test_no_credentials_are_said_in_one_sentence(seaweed: SeaweedFS) -> None:
    """With the places where they were looked for."""
    assert await _told(seaweed) == (
        "no AWS credentials were found in environment, profile, web identity or role"
    )


async def test_a_profile_that_is_not_there_is_said_in_one_sentence(
    seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name."""
    monkeypatch.setenv("AWS_PROFILE", "absent")

    assert "(absent) could not be found" in await _told(seaweed)


async def _told(seaweed: SeaweedFS) -> str:
    with pytest.raises(StorageInvalid) as told:
        async with chained(seaweed) as bucket:
            await probe(bucket)
    return str(told.value)
