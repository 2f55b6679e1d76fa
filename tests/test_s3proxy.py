"""The proxy between the server and S3 tells what was called and breaks what it is told to."""

from __future__ import annotations

import asyncio
import hashlib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from time import monotonic

import aiohttp
import pytest

from tests.real.seaweed import SeaweedFS
from tests.s3.calls import Kind, kind_of, parse
from tests.s3.faults import Fault, What
from tests.s3.process import ProxyProcess, Seen
from tests.s3.proxy import S3Proxy, proxy_thread
from tests.s3.signing import Signer

_HEX = "ab" + "0" * 62
_BLOB = f"default/blobs/sha256/ab/{_HEX}"
_TAG = "default/repositories/team/app/_tags/latest"
_BYTES = bytes(range(256)) * 4096


class Client:
    """Sends presigned requests through a proxy, and repeats nothing."""

    def __init__(self, session: aiohttp.ClientSession, place: str, signer: Signer) -> None:
        self.session = session
        self._place = place
        self._signer = signer

    def url(self, method: str, key: str, **query: str) -> str:
        return self._signer.presign(method, f"{self._place}/{key}", query)

    async def call(self, method: str, key: str, body: bytes = b"") -> tuple[int, bytes]:
        async with self.session.request(method, self.url(method, key), data=body) as answer:
            return answer.status, await answer.read()


@pytest.fixture
async def proxy(seaweed: SeaweedFS) -> AsyncIterator[S3Proxy]:
    async with S3Proxy.running(seaweed.endpoint) as running:
        yield running


@pytest.fixture
async def client(seaweed: SeaweedFS, proxy: S3Proxy, s3_prefix: str) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        session._retry_connection = False
        signer = replace(seaweed.signer, endpoint=proxy.url)
        yield Client(session, f"/{seaweed.bucket}/{s3_prefix}", signer)


async def test_calls_are_passed_on_and_counted(client: Client, proxy: S3Proxy) -> None:
    """A signed call works, and is counted by its operation and kind, with its bytes."""
    assert (await client.call("PUT", _BLOB, _BYTES))[0] == 200
    assert await client.call("GET", _BLOB) == (200, _BYTES)
    assert (await client.call("HEAD", _TAG))[0] == 404

    expected = {("PutObject", "blob"): 1, ("GetObject", "blob"): 1, ("HeadObject", "tag"): 1}
    assert proxy.counts == expected
    assert (proxy.bytes_sent, proxy.bytes_received) == (len(_BYTES), len(_BYTES))
    assert [call.status for call in proxy.calls] == [200, 200, 404]
    assert proxy.calls[0].headers["host"] == proxy.url.removeprefix("http://")


async def test_head_tells_the_length(client: Client) -> None:
    """The answer to HEAD has the length of the object and no body."""
    await client.call("PUT", _BLOB, _BYTES)
    async with client.session.head(client.url("HEAD", _BLOB)) as answer:
        assert answer.headers["Content-Length"] == str(len(_BYTES))
        assert await answer.read() == b""


async def test_a_body_of_unknown_length_goes_through(client: Client, proxy: S3Proxy) -> None:
    """A large body is streamed to S3, even where the client waits to be told that it may send."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(16):
            yield _BYTES

    headers = {"Content-Length": str(16 * len(_BYTES)), "Expect": "100-continue"}
    url = client.url("PUT", _BLOB)
    async with client.session.put(url, data=pieces(), headers=headers) as answer:
        assert answer.status == 200
    _, body = await client.call("GET", _BLOB)

    assert hashlib.sha256(body).digest() == hashlib.sha256(_BYTES * 16).digest()
    assert proxy.bytes_sent == 16 * len(_BYTES)


async def test_the_delay_is_added_to_every_call(client: Client, proxy: S3Proxy) -> None:
    """A call takes at least the delay, and calls at the same time share it."""
    proxy.delay = 0.3
    started = monotonic()
    await asyncio.gather(*(client.call("HEAD", _BLOB) for _ in range(30)))

    assert 0.3 <= monotonic() - started < 30 * 0.3


@pytest.mark.parametrize("what", [What.REFUSE, What.RESET])
async def test_a_reset_shows_whether_s3_heard_the_call(
    client: Client, proxy: S3Proxy, what: What
) -> None:
    """REFUSE keeps the call from S3; RESET loses the answer of a call that S3 has executed."""
    fault = Fault("PutObject", "tag", 1, what)
    proxy.fail(fault)
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.call("PUT", _TAG, b"record")
    status, _ = await client.call("GET", _TAG)

    assert status == (200 if what is What.RESET else 404)
    assert proxy.fired == [fault]


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [(What.ERROR, 500, b"InternalError"), (What.SLOW_DOWN, 503, b"SlowDown")],
)
async def test_an_error_answer_is_that_of_s3(
    client: Client, proxy: S3Proxy, what: What, status: int, code: bytes
) -> None:
    """ERROR and SLOW_DOWN answer with S3's XML, and S3 does not hear of the call."""
    proxy.fail(Fault("PutObject", "blob", 1, what))
    answered, body = await client.call("PUT", _BLOB, _BYTES)

    assert (answered, code in body) == (status, True)
    assert (await client.call("HEAD", _BLOB))[0] == 404


async def test_a_cut_breaks_the_body(client: Client, proxy: S3Proxy) -> None:
    """CUT announces the whole length, delivers so many bytes and breaks the connection."""
    await client.call("PUT", _BLOB, _BYTES)
    proxy.fail(Fault("GetObject", "blob", 1, What.CUT, at=300_000))
    async with client.session.get(client.url("GET", _BLOB)) as answer:
        assert answer.headers["Content-Length"] == str(len(_BYTES))
        assert await answer.content.readexactly(300_000) == _BYTES[:300_000]
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readany()


async def test_bytes_can_be_missing_or_wrong(client: Client, proxy: S3Proxy) -> None:
    """TRUNCATED and WRONG answers are whole as HTTP sees them, with other bytes."""
    await client.call("PUT", _BLOB, _BYTES)
    proxy.fail(Fault("GetObject", "blob", 1, What.TRUNCATED, at=5))
    proxy.fail(Fault("GetObject", "blob", 2, What.WRONG, at=300_000))

    assert await client.call("GET", _BLOB) == (200, _BYTES[:5])
    _, wrong = await client.call("GET", _BLOB)
    differences = [place for place, byte in enumerate(wrong) if byte != _BYTES[place]]
    assert (len(wrong), differences) == (len(_BYTES), [300_000])
    assert await client.call("GET", _BLOB) == (200, _BYTES)


async def test_a_stalled_call_waits_to_be_released(client: Client, proxy: S3Proxy) -> None:
    """STALL keeps the call from S3 until it is released; STALL_BODY holds the rest of the body."""
    proxy.fail(Fault("PutObject", "blob", 1, What.STALL))
    stalled = asyncio.create_task(client.call("PUT", _BLOB, _BYTES))
    while not proxy.fired:
        await asyncio.sleep(0.01)
    assert (await client.call("HEAD", _BLOB))[0] == 404
    proxy.release()
    assert (await stalled)[0] == 200

    proxy.fail(Fault("GetObject", None, 1, What.STALL_BODY, at=10))
    async with client.session.get(client.url("GET", _BLOB)) as answer:
        assert await answer.content.readexactly(10) == _BYTES[:10]
        proxy.release()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_client_that_leaves_ends_its_call(client: Client, proxy: S3Proxy) -> None:
    """A stalled call is over when its client has gone away."""
    proxy.fail(Fault(None, None, 1, What.STALL))
    stalled = asyncio.create_task(client.call("GET", _BLOB))
    while not proxy.fired:
        await asyncio.sleep(0.01)
    stalled.cancel()
    while not proxy.calls[0].over:
        await asyncio.sleep(0.01)


async def test_rules_count_their_own_calls(client: Client, proxy: S3Proxy) -> None:
    """Calls of another operation or kind in between do not move a fault."""
    proxy.fail(Fault("HeadObject", "blob", 2, What.ERROR, times=2))
    keys = (_TAG, _BLOB, _TAG, _BLOB, _TAG, _BLOB, _BLOB)

    statuses = [(await client.call("HEAD", key))[0] for key in keys]
    assert statuses == [404, 404, 404, 500, 404, 500, 404]


async def test_down_refuses_connections_until_up(client: Client, proxy: S3Proxy) -> None:
    """While down, open connections are broken and new ones refused; up again at the same place."""
    for _ in range(2):
        assert (await client.call("HEAD", _BLOB))[0] == 404
        proxy.down()
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.call("HEAD", _BLOB)
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.call("HEAD", _BLOB)
        proxy.up()
    assert (await client.call("HEAD", _BLOB))[0] == 404


def test_a_thread_serves_clients_that_block(seaweed: SeaweedFS, s3_prefix: str) -> None:
    """The proxy works from a thread of its own, and is steered from others."""
    with proxy_thread(seaweed.endpoint, delay=0.01) as proxy:
        signer = replace(seaweed.signer, endpoint=proxy.url)
        url = signer.presign("GET", f"/{seaweed.bucket}", {"list-type": "2", "prefix": s3_prefix})
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"ListBucketResult" in answer.read()
        proxy.down()
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.urlopen(url, timeout=30)
        proxy.up()
        urllib.request.urlopen(url, timeout=30).close()

        assert proxy.counts == {("ListObjectsV2", "other"): 2}


@pytest.mark.parametrize(
    ("request_line", "operation"),
    [
        ("GET /b?list-type=2&prefix=x", "ListObjectsV2"),
        ("GET /b?uploads", "ListMultipartUploads"),
        ("HEAD /b/", "HeadBucket"),
        ("POST /b?delete=", "DeleteObjects"),
        ("POST /b/k?uploads=", "CreateMultipartUpload"),
        ("PUT /b/k?partNumber=1&uploadId=u", "UploadPart"),
        ("POST /b/k?uploadId=u", "CompleteMultipartUpload"),
        ("DELETE /b/k?uploadId=u", "AbortMultipartUpload"),
        ("GET /b/k?uploadId=u", "ListParts"),
        ("GET /b/k?X-Amz-Signature=s&x-id=GetObject", "GetObject"),
        ("PATCH /b/k", "PATCH"),
    ],
)
def test_operations_are_told_apart(request_line: str, operation: str) -> None:
    """The name of a call is that of S3's own documentation."""
    method, _, target = request_line.partition(" ")
    assert parse(method, target, {}).operation == operation


@pytest.mark.parametrize(
    ("query", "operation"), [("", "CopyObject"), ("?uploadId=u", "UploadPartCopy")]
)
def test_copies_are_told_from_uploads(query: str, operation: str) -> None:
    """A PUT that names a source is a copy."""
    assert parse("PUT", f"/b/k{query}", {"x-amz-copy-source": "b/other"}).operation == operation


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (_BLOB, "blob"),
        (f"some/prefix/{_BLOB}", "blob"),
        (f"default/repositories/blobs/app/_manifests/sha256/{_HEX}", "manifest"),
        (_TAG, "tag"),
        ("default/repositories/a/_tags/format", "tag"),
        ("default/repositories/a/_referrers/sha256-1/sha256-2", "referrer"),
        ("default/repositories/", "repository"),
        ("default/deleted/team:app", "deleted"),
        ("default/uploads/1/00000000000000000000", "upload"),
        ("prefix/format", "format"),
        ("secret", "secret"),
        ("lock", "lock"),
        ("", "other"),
    ],
)
def test_kinds_of_keys_are_told_apart(key: str, kind: Kind) -> None:
    """The kind of a key follows from the layout of the bucket, whatever the prefix."""
    assert kind_of(key) == kind


def test_a_process_of_its_own_tells_what_it_has_seen(seaweed: SeaweedFS, s3_prefix: str) -> None:
    with ProxyProcess.running(seaweed.endpoint) as proxy:
        signer = replace(seaweed.signer, endpoint=proxy.url)
        url = signer.presign("PUT", f"/{seaweed.bucket}/{s3_prefix}/key")
        put = urllib.request.Request(url, data=b"content", method="PUT")
        urllib.request.urlopen(put, timeout=30).close()
        assert proxy.take() == [Seen("PutObject", "other", f"{s3_prefix}/key", 7, 0)]

        proxy.delay(0.3)
        began = monotonic()
        urllib.request.urlopen(put, timeout=30).close()
        assert monotonic() - began >= 0.3
        assert len(proxy.take()) == 1
