"""The buckets that the promises of `Bucket` are held against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from cacheproxy.storage.bucket import Bucket
from cacheproxy.storage.folder import FolderBucket
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
