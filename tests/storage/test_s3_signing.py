"""Addresses are signed as botocore signs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import get_session
from botocore import xform_name

from cacheproxy.storage.s3.signing import Signer, Wanted

_BUCKET = "my-bucket"
_SECONDS = 60

_KEY = ("AK/+=", "secret/+=", "token/+=")
_KEY_WITHOUT_TOKEN = ("AK", "secret", None)

_PUT = {"Key": "a", "ContentLength": 5, "ChecksumSHA256": "abc=", "Metadata": {"write": "1"}}
_PUT_HEADERS = {
    "Content-Length": "5",
    "x-amz-checksum-sha256": "abc=",
    "x-amz-meta-write": "1",
    "If-None-Match": "*",
}
_PART = {"Key": "a", "PartNumber": 3, "UploadId": "id/+=&", "ContentLength": 5}
_WANTED = (
    Wanted("HeadObject", "HEAD", {"Key": "a"}, {}),
    Wanted("GetObject", "GET", {"Key": "a b/ü~(1)'!*", "Range": "x"}, {"Range": "x"}),
    Wanted("DeleteObject", "DELETE", {"Key": "a", "IfMatch": '"e"'}, {"If-Match": '"e"'}),
    Wanted("UploadPart", "PUT", _PART, {"Content-Length": "5"}),
    Wanted("PutObject", "PUT", {**_PUT, "IfNoneMatch": "*"}, _PUT_HEADERS),
)


@pytest.mark.parametrize("key", [_KEY, _KEY_WITHOUT_TOKEN])
@pytest.mark.parametrize("first", ["a", "a b/ü~(1)'!*"])
@pytest.mark.parametrize(
    ("endpoint_url", "style"),
    [
        (None, "virtual"),
        (None, "path"),
        ("http://127.0.0.1:8333", "path"),
        ("http://s3.example:80/base", "path"),
        ("https://s3.example:443", "virtual"),
    ],
)
async def test_addresses_are_those_of_botocore(
    endpoint_url: str | None, style: str, first: str, key: tuple[str, str, str | None]
) -> None:
    """Wherever the bucket is, and whatever the request from which that was learned."""
    making = get_session().create_client(
        "s3",
        region_name="eu-central-1",
        endpoint_url=endpoint_url,
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        aws_session_token=key[2],
        config=AioConfig(signature_version="s3v4", s3={"addressing_style": style}),
    )
    async with making as client:
        signer = Signer(client, AioCredentials(*key), _BUCKET)
        await signer.sign(Wanted("GetObject", "GET", {"Key": first}, {}), _SECONDS)
        for wanted in _WANTED:
            while True:
                ours, theirs = await signer.sign(wanted, _SECONDS), await _signed(client, wanted)
                if _query(ours)["X-Amz-Date"] == _query(theirs)["X-Amz-Date"]:
                    break
            assert ours.partition("?")[0] == theirs.partition("?")[0]
            assert _query(ours) == _query(theirs)


async def _signed(client: Any, wanted: Wanted) -> str:
    url: str = await client.generate_presigned_url(
        xform_name(wanted.operation),
        Params={"Bucket": _BUCKET, **wanted.params},
        ExpiresIn=_SECONDS,
    )
    return url


def _query(url: str) -> Mapping[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
