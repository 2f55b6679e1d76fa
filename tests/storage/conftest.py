"""The buckets that the promises of `Bucket` are held against, and where keys come from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
from cacheproxy.storage.s3 import retry
from tests.s3.aws import ROLE, FakeAws
from tests.storage.objects import Files
from tests.storage.s3_buckets import WEED, opened


@asynccontextmanager
async def _folder(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[Bucket]:
    place.mkdir()
    yield FolderBucket(str(place))


@asynccontextmanager
async def _s3(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[Bucket]:
    async with opened(request.getfixturevalue("seaweed")) as bucket:
        yield bucket


@asynccontextmanager
async def _s3_without_conditions(
    request: pytest.FixtureRequest, place: Path
) -> AsyncIterator[Bucket]:
    seaweed = request.getfixturevalue("seaweed")
    async with opened(seaweed, abilities=replace(WEED, conditional_writes=False)) as bucket:
        yield bucket


_Open = Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[Bucket]]
_IMPLEMENTATIONS: dict[str, _Open] = {
    "folder": _folder,
    "s3": _s3,
    "s3-without-conditions": _s3_without_conditions,
}


@pytest_asyncio.fixture(params=_IMPLEMENTATIONS)
async def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bucket]:
    """An empty bucket of every kind."""
    async with _IMPLEMENTATIONS[request.param](request, tmp_path / "bucket") as bucket:
        yield bucket


@pytest.fixture
def files(bucket: Bucket, tmp_path: Path) -> Files:
    """Files that can become its objects."""
    return Files(bucket, tmp_path)


@pytest.fixture
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is told at once, though S3 is waited for as long as a busy machine may need."""
    for name in ("_FIRST_WAIT_SECONDS", "_LONGEST_WAIT_SECONDS"):
        monkeypatch.setattr(retry, name, 3600.0)


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials anywhere, whatever there is on this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "20")  # this machine is busy


@pytest.fixture
async def aws(no_credentials: None) -> AsyncIterator[FakeAws]:
    async with FakeAws().running() as aws:
        yield aws


@pytest.fixture
def web_identity(aws: FakeAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What a service account gets in a cluster; the file of its token."""
    token = tmp_path / "token"
    token.write_text("token-of-the-cluster")
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
    return token
