"""The credentials of the standard AWS chain; those that end are renewed beside the requests.

By botocore a request that finds a key near its end renews it, and fails where that fails, though
the key holds for minutes yet. With the little time that requests have here, an STS that hangs
would be an S3 that is gone.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

from aiobotocore.credentials import AioRefreshableCredentials, create_credential_resolver
from aiobotocore.session import AioSession

_WAIT_SECONDS: Final = 0.5


class Chain:
    """botocore's component that finds credentials; to be closed."""

    def __init__(self, session: AioSession, region: str | None) -> None:
        self._session = session
        self._region = region
        self._renewed: list[Renewed] = []

    async def load_credentials(self) -> Any:
        resolver = create_credential_resolver(self._session, region_name=self._region)
        found = await resolver.load_credentials()
        if not isinstance(found, AioRefreshableCredentials):
            return found
        self._renewed.append(Renewed(found))
        return self._renewed[-1]

    async def close(self) -> None:
        for renewed in self._renewed:
            await renewed.close()


class Renewed:
    """`credentials`, whose renewal goes on whoever stops to wait, and keeps up who has a key."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._key: Any = None
        self._renewal: asyncio.Task[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._credentials, name)

    async def get_frozen_credentials(self) -> Any:
        if not self._credentials.refresh_needed():
            self._key = await self._credentials.get_frozen_credentials()
            return self._key
        first = self._renewal is None or self._renewal.done()
        if self._renewal is None or first:
            self._renewal = asyncio.create_task(self._credentials.get_frozen_credentials())
            self._renewal.add_done_callback(_look_at)
        renewal = self._renewal
        if self._key is None or self._credentials.refresh_needed(0):
            self._key = await asyncio.shield(renewal)
            return self._key
        if first:
            await asyncio.wait([renewal], timeout=_WAIT_SECONDS)
        if renewal.done() and not renewal.cancelled() and renewal.exception() is None:
            self._key = renewal.result()
        return self._key

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._renewal


def _look_at(renewal: asyncio.Task[Any]) -> None:
    """So that its failure is not logged as lost; botocore has logged it."""
    if not renewal.cancelled():
        renewal.exception()
