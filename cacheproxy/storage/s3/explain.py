"""Why a bucket cannot be used, for who has named it in the configuration."""

from collections.abc import Iterator
from typing import Final

import aiohttp
from botocore.exceptions import (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from cacheproxy.errors import Unavailable
from cacheproxy.storage.s3.answers import NO_BUCKET, Refused
from cacheproxy.storage.s3.options import S3Options

_CREDENTIALS: Final = (NoCredentialsError, PartialCredentialsError)
_ELSEWHERE: Final = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect"})
_SENTENCES: Final = {
    NO_BUCKET: "there is no bucket {bucket!r} at {where}",
    "InvalidAccessKeyId": "the access key is not known at {where}",
    "SignatureDoesNotMatch": "the secret key does not fit the access key at {where}",
}


def explain(error: Unavailable, options: S3Options) -> str:
    """One sentence: what is wrong, or what S3 said."""
    where = options.endpoint_url or "AWS"
    for cause in _causes(error):
        if isinstance(cause, Refused):
            return _refused(cause, options.bucket, where)
        if isinstance(cause, _CREDENTIALS):
            return "no AWS credentials were found in environment, profile, web identity or role"
        if isinstance(cause, CredentialRetrievalError):
            return f"no AWS credentials could be had: {cause.kwargs['error_msg']}"
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            return _unknown(cause.host, options, where)
        if isinstance(cause, aiohttp.ClientSSLError):
            return f"there is no trusted TLS connection to {where}: {cause}"
    if error.__cause__ is None:
        return f"S3 at {where} cannot be used: {error}"
    return f"S3 at {where} cannot be reached: {error}"


def _unknown(host: str, options: S3Options, where: str) -> str:
    if host.startswith(options.bucket + ".") and not options.path_style:
        return f"the host {host} is not known; path_style would name the bucket in the path"
    return f"the host of {where} is not known"


def _refused(refused: Refused, bucket: str, where: str) -> str:
    if refused.code in _ELSEWHERE or refused.status == 301:
        return f"the bucket {bucket!r} is in another region"
    if sentence := _SENTENCES.get(refused.code):
        return sentence.format(bucket=bucket, where=where)
    if refused.status in (401, 403):
        return f"{refused.operation} on the bucket {bucket!r} is denied at {where}: {refused.code}"
    return f"{where} answered {refused.operation} with {refused.status} {refused.code}".rstrip()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
