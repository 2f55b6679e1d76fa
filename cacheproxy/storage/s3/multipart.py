"""A multipart upload to S3: begun, its parts, and its end, one way or the other."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from cacheproxy.errors import Conflict, Unavailable
from cacheproxy.storage.bucket import ABSENT
from cacheproxy.storage.s3.objects import S3Objects, condition, new_write, pushed_by
from cacheproxy.storage.s3.parts import Copy
from cacheproxy.storage.s3.requests import Body, Request

Part = dict[str, Any]
"""A part as S3 wants to be told of it at the end."""

_REFUSED: Final = frozenset({404, 412})


class Multipart:
    """One of `key`, by the id that S3 gave it."""

    def __init__(self, objects: S3Objects, key: str, id_: str, write: dict[str, str]) -> None:
        self._objects = objects
        self._key = key
        self._write = write
        self._params = {"Key": objects.name(key), "UploadId": id_}

    @classmethod
    async def begin(cls, objects: S3Objects, key: str, pusher: str) -> "Multipart":
        write = new_write()
        params = {
            "Key": objects.name(key),
            "Metadata": {**write, **pushed_by(pusher)},
            **objects.options.object_params(),
        }
        if objects.options.checksums == "required":
            params["ChecksumAlgorithm"] = "SHA256"
        called = await objects.requests.call(
            "CreateMultipartUpload", params, objects.options.write_seconds
        )
        return cls(objects, key, called.found["UploadId"], write)

    async def send(
        self, number: int, body: Callable[[], Body], length: int, sha256: bytes | None
    ) -> Part:
        """Upload `length` bytes of `body` as part `number`, which counts from 1."""
        given = {"ChecksumSHA256": base64.b64encode(sha256).decode()} if sha256 else {}
        request = Request(
            "UploadPart",
            self._params | {"PartNumber": number, "ContentLength": length} | given,
            self._objects.options.write_seconds,
            length=length,
            body=body,
        )
        reply = await self._objects.requests.send(request)
        return {"PartNumber": number, "ETag": reply.headers["ETag"], **given}

    async def copy(self, number: int, source: str, size: int, step: Copy) -> Part:
        """Have part `number` copied from the object `source` of `size` bytes."""
        objects, piece = self._objects, step.piece
        params = self._params | {"PartNumber": number, "CopySource": copy_source(objects, source)}
        if piece.length != size:
            params["CopySourceRange"] = f"bytes={piece.start}-{piece.start + piece.length - 1}"
        called = await objects.requests.call(
            "UploadPartCopy", params, objects.options.write_seconds, length=piece.length
        )
        result = called.found["CopyPartResult"]
        given = {name: result[name] for name in ("ChecksumSHA256",) if name in result}
        return {"PartNumber": number, "ETag": result["ETag"], **given}

    async def complete(self, parts: list[Part], length: int, *, absent: bool) -> None:
        """Make the parts the object.

        Raises:
            Conflict: it was to be `absent` and is not.
        """
        objects, key = self._objects, self._key
        async with objects.condition(key, ABSENT if absent else None) as sent:
            called = await objects.requests.call(
                "CompleteMultipartUpload",
                self._params | {"MultipartUpload": {"Parts": parts}, **condition(sent)},
                objects.options.write_seconds,
                length=length,
                expect=_REFUSED,
            )
            # A second attempt finds that the upload is no more, or the object there, if the first
            # one's answer was lost.
            if called.status == 200 or (called.before and await objects.is_by(key, self._write)):
                return
        raise Conflict(key) if called.status == 412 else _lost(called.found)

    async def abort(self) -> None:
        objects = self._objects
        await objects.requests.call(
            "AbortMultipartUpload",
            self._params,
            objects.options.write_seconds,
            expect=frozenset({404}),
        )


def copy_source(objects: S3Objects, key: str) -> dict[str, str]:
    return {"Bucket": objects.options.bucket, "Key": objects.name(key)}


def _lost(answer: Mapping[str, Any]) -> Unavailable:
    code = answer.get("Error", {}).get("Code", "")
    return Unavailable(f"the bucket has lost an upload: {code}")
