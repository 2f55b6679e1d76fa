"""Signing: the addresses of requests, with AWS Signature Version 4 in the query.

How a bucket is addressed, and by which region, botocore's client knows: it makes the first address.
The others are made of that by its signer alone, at half the cost, which a small blob would feel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, urlencode

from botocore import xform_name
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

_QUERY: Final = {"PartNumber": "partNumber", "UploadId": "uploadId"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for one object, with botocore's names for it and for its `params`."""

    operation: str
    method: str
    params: Mapping[str, Any]
    headers: Mapping[str, str]


class Signer:
    """Signs requests to `bucket` with what `client` and `credentials` are at the time."""

    def __init__(self, client: Any, credentials: Any, bucket: str) -> None:
        self._client = client
        self._credentials = credentials
        self._bucket = bucket
        self._place: _Place | None = None

    async def sign(self, wanted: Wanted, seconds: int) -> str:
        """The address at which the request can be made for so long, with its headers.

        Raises what botocore does if there is no key.
        """
        if self._place is not None:
            key = await self._credentials.get_frozen_credentials()
            return self._place.sign(wanted, key, seconds)
        url: str = await self._client.generate_presigned_url(
            xform_name(wanted.operation),
            Params={"Bucket": self._bucket, **wanted.params},
            ExpiresIn=seconds,
        )
        self._place = _Place.of(url, wanted.params["Key"])
        return url


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a bucket is: what comes before a key in an address, and the region that signs."""

    base: str
    region: str

    @classmethod
    def of(cls, url: str, key: str) -> Self:
        """As the address of `key` tells."""
        address, _, query = url.partition("?")
        [credential] = parse_qs(query)["X-Amz-Credential"]
        region = credential.split("/")[-3]  # from behind: a key may have slashes too
        return cls(address.removesuffix(quote(key, safe="/~")), region)

    def sign(self, wanted: Wanted, key: Any, seconds: int) -> str:
        asked = {_QUERY[name]: wanted.params[name] for name in _QUERY.keys() & wanted.params}
        address = self.base + quote(wanted.params["Key"], safe="/~")
        if asked:
            address += "?" + urlencode(asked)
        request = AWSRequest(wanted.method, address, dict(wanted.headers))
        S3SigV4QueryAuth(key, "s3", self.region, expires=seconds).add_auth(request)
        url: str = request.url
        return url
