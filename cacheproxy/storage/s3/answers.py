"""What S3 answers, and what it means for who asked."""

import re
from typing import Any, Final

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from cacheproxy.errors import RegistryError, StorageFull, Unavailable
from cacheproxy.storage.s3.retry import Passing

NO_BUCKET: Final = "NoSuchBucket"

_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,100})</Code>")

# 409 is ConditionalRequestConflict and OperationAborted: another writer was there just then.
_PASSING_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_PASSING_CODES: Final = frozenset({"RequestTimeout", "SlowDown", "InternalError"})
_PASSING_ERRORS: Final = (
    aiohttp.ClientError,
    BotoConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    OSError,
    ResponseParserError,
    TimeoutError,
)

FAILURES: Final = (*_PASSING_ERRORS, BotoCoreError)
"""What a request that was not answered raises."""

NO_KEY: Final = (BotoConnectionError, ClientError, HTTPClientError, OSError, RuntimeError)
"""What it raises that there is no key to sign with: botocore lets errors of STS and files out."""


class Refused(Exception):
    """S3 answered `operation` with something else than was asked for."""

    def __init__(self, operation: str, status: int, code: str) -> None:
        super().__init__(f"{operation}: {status} {code}")
        self.operation = operation
        self.status = status
        self.code = code

    @classmethod
    def told(cls, operation: str, error: ClientError) -> "Refused":
        answer: dict[str, Any] = error.response
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return cls(operation, status, str(answer.get("Error", {}).get("Code", "")))

    def is_one_of(self, expected: frozenset[int]) -> bool:
        """Whether it is an answer to who expects these statuses.

        A bucket that is not there is never: an object's absence would be believed for ever.
        """
        return self.status in expected and self.code != NO_BUCKET

    def error(self) -> RegistryError | Passing:
        detail = f"the bucket answered {self.operation} with {self.status} {self.code}".rstrip()
        if self.status == 507:
            return StorageFull("there is no room left in the bucket")
        if self.status in _PASSING_STATUSES or self.code in _PASSING_CODES:
            return Passing(detail)
        return Unavailable(detail)


def code_in(body: bytes) -> str:
    """The code of an error document; empty if there is none."""
    found = _CODE.search(body)
    return found[1].decode() if found else ""


def keyless(error: Exception) -> CredentialRetrievalError:
    """One error for all in `NO_KEY`."""
    return CredentialRetrievalError(provider="AWS", error_msg=error)


def failure(operation: str, error: BaseException) -> RegistryError | Passing:
    """What the failure of a request is called outside."""
    if isinstance(error.__cause__, RegistryError):
        return error.__cause__  # aiohttp's wrapping of what reading the body to send raised
    if isinstance(error, TimeoutError):
        return Passing(f"the bucket did not answer {operation} in time")
    if isinstance(error, CredentialRetrievalError):
        return Passing(f"there are no credentials for {operation} just now")
    if isinstance(error, _PASSING_ERRORS):
        return Passing(f"the bucket cannot be reached for {operation}")
    return Unavailable(f"the bucket cannot be asked for {operation}")


def cause(error: BaseException) -> BaseException:
    """What to tell as the cause of a failure: that of a proxy tells its address, in which there may
    be a password."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, aiohttp.ClientHttpProxyError):
            return ConnectionError(f"the proxy answered {found.status} {found.message}")
        found = found.__cause__ or found.__context__
    return error
