"""From an error to its answer: the only place where an error gets a status."""

import json
from typing import Final

from aiohttp import web

from cacheproxy import errors

STATUS: Final[dict[type[errors.RegistryError], int]] = {
    errors.BlobUnknown: 404,
    errors.BlobUploadInvalid: 400,
    errors.BlobUploadUnknown: 404,
    errors.BlobTooLarge: 413,
    errors.DigestInvalid: 400,
    errors.Denied: 403,
    errors.EndpointUnknown: 404,
    errors.ManifestBlobUnknown: 400,
    errors.ManifestInvalid: 400,
    errors.ManifestTooLarge: 413,
    errors.ManifestUnknown: 404,
    errors.MethodUnsupported: 405,
    errors.NameInvalid: 400,
    errors.NameUnknown: 404,
    errors.RangeNotSatisfiable: 416,
    errors.RequestInvalid: 400,
    errors.RequestTimeout: 408,
    errors.SizeInvalid: 400,
    errors.StorageFull: 507,
    errors.Unauthorized: 401,
    errors.Unavailable: 503,
    errors.Unsupported: 400,
    errors.UploadOutOfOrder: 416,
}

RETRY_AFTER: Final = "5"  # seconds


def render(error: errors.RegistryError) -> web.Response:
    """The error in the spec's form (distribution-spec, "Error codes")."""
    return web.Response(
        status=STATUS[type(error)],
        body=_body(error.code, error.detail),
        headers={"Content-Type": "application/json", **_headers(error)},
    )


def render_unknown() -> web.Response:
    """The answer to a fault of our own, which says nothing about it."""
    return web.Response(
        status=500,
        body=_body(errors.ErrorCode.UNKNOWN, "this is a fault of the registry; its log says more"),
        headers={"Content-Type": "application/json"},
    )


def _body(code: errors.ErrorCode, detail: str) -> bytes:
    entry = {"code": code.name, "message": code.value, "detail": detail}
    return json.dumps({"errors": [entry]}).encode()


def _headers(error: errors.RegistryError) -> dict[str, str]:
    match error:
        case errors.RangeNotSatisfiable():
            return {"Content-Range": f"bytes */{error.size}"}
        case errors.UploadOutOfOrder():
            return {"Range": f"0-{max(0, error.offset - 1)}"}
        case errors.MethodUnsupported():
            return {"Allow": ", ".join(error.allowed)}
        case errors.Unavailable():
            return {"Retry-After": RETRY_AFTER}
        case _:
            return {}
