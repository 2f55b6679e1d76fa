"""S3 buckets of the tests."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from cacheproxy.storage.bucket import Observe
from cacheproxy.storage.s3.bucket import S3Bucket, open_s3
from cacheproxy.storage.s3.options import Abilities, S3Options
from cacheproxy.storage.s3.parts import MIB
from tests.real.seaweed import SeaweedFS
from tests.real.weak_s3 import WeakS3
from tests.s3.aws import Key

PART = 5 * MIB
WEED = Abilities(flat=False)


def options(server: SeaweedFS | WeakS3, **changes: Any) -> S3Options:
    """A fresh prefix in the bucket of the tests, with parts as small as they may be."""
    base = S3Options(
        server.bucket,
        prefix=f"test-{secrets.token_hex(6)}/",
        endpoint_url=server.endpoint,
        region="us-east-1",
        path_style=True,
        part_bytes=PART,
        copy_bytes=2 * PART,
        read_seconds=10,  # machines that run tests are busy
    )
    return replace(base, **changes)


@asynccontextmanager
async def opened(
    server: SeaweedFS | WeakS3,
    observe: Observe | None = None,
    abilities: Abilities = WEED,
    **changes: Any,
) -> AsyncIterator[S3Bucket]:
    """A bucket of `server`, with its key pair."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        async with open_s3(options(server, **changes), abilities, observe) as bucket:
            yield bucket


@contextmanager
def hasty(bucket: S3Bucket, *, read: float, write: float) -> Iterator[None]:
    """Calls that begin inside are waited for no longer than these seconds.

    It is for what S3 does not answer; what is to succeed may take longer on a busy machine.
    """
    requests = bucket._requests
    patient = requests.options
    object.__setattr__(
        requests, "options", replace(patient, read_seconds=read, write_seconds=write)
    )
    try:
        yield
    finally:
        object.__setattr__(requests, "options", patient)


def chained(
    server: SeaweedFS, url: str | None = None, **changes: Any
) -> AbstractAsyncContextManager[S3Bucket]:
    """A bucket of `server` at `url`, with the credentials that the AWS chain finds."""
    return open_s3(options(server, endpoint_url=url or server.endpoint, **changes), WEED)


def known_key(server: SeaweedFS, seconds: int = 3600) -> Key:
    """The key pair of `server`, which takes no tokens, as temporary credentials."""
    return Key(server.access_key, server.secret_key, "", seconds)
