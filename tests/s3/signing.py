"""Presigned requests, made without the code under test."""

from __future__ import annotations

import functools
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with AWS Signature Version 4 in the query string."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def presign(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: int = 3600,
    ) -> str:
        """The URL of a request on `path`, which begins with a slash and the bucket.

        The client has to send these `headers` as well.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        signed = {name.lower(): value for name, value in (headers or {}).items()}
        signed["host"] = urlsplit(self.endpoint).netloc
        names = ";".join(sorted(signed))
        values = {
            **(query or {}),
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.access_key}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": names,
        }
        pairs = sorted((quote(name, safe=""), quote(values[name], safe="")) for name in values)
        sorted_query = "&".join(f"{name}={value}" for name, value in pairs)
        lines = (f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
        request = "\n".join(
            (method, quote(path), sorted_query, "".join(lines), names, "UNSIGNED-PAYLOAD")
        )
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = self._sign(scope, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}")
        return f"{self.endpoint}{quote(path)}?{sorted_query}&X-Amz-Signature={signature}"

    def _sign(self, scope: str, text: str) -> str:
        first = f"AWS4{self.secret_key}".encode()
        key = functools.reduce(_hmac, scope.split("/"), first)
        return _hmac(key, text).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
