"""How the bucket is reached: whom TLS trusts, and which host is asked."""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cacheproxy.errors import StorageInvalid, Unavailable
from cacheproxy.oci.digest import digest_of
from cacheproxy.storage.s3.bucket import S3Bucket
from cacheproxy.storage.s3.probe import probe
from tests.real.seaweed import SeaweedFS
from tests.s3.proxy import S3Proxy
from tests.s3.tls import Certificate, certify, tls_before
from tests.storage.objects import content, keys
from tests.storage.s3_buckets import PART, opened


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certify(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
async def https(seaweed: SeaweedFS, certificate: Certificate) -> AsyncIterator[str]:
    async with tls_before(seaweed.endpoint, certificate) as url:
        yield url


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is that of this machine."""
    look_up = socket.getaddrinfo

    def local(host: str, *args: Any, **kwargs: Any) -> Any:
        return look_up("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local)


async def _use(bucket: S3Bucket, folder: Path) -> None:
    """By requests that we send, and by those that aiobotocore sends."""
    data = b"x" * (PART + 1)
    path = folder / "file"
    path.write_bytes(data)
    async with bucket.upload(str(path), "large", len(data)) as upload:
        await upload.commit(digest_of(data), len(data))
    assert await content(bucket, "large") == data
    assert await keys(bucket, "") == ["large"]


async def test_an_authority_of_ones_own_is_trusted(
    seaweed: SeaweedFS, https: str, certificate: Certificate, tmp_path: Path
) -> None:
    """As named for the bucket."""
    ca_file = str(certificate.authority)
    async with opened(seaweed, endpoint_url=https, ca_file=ca_file) as bucket:
        await _use(bucket, tmp_path)


async def test_the_authority_of_aws_settings_is_trusted(
    seaweed: SeaweedFS,
    https: str,
    certificate: Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As other programs take it."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.authority))
    async with opened(seaweed, endpoint_url=https) as bucket:
        await _use(bucket, tmp_path)


@pytest.mark.parametrize("form", ["http://{}", "{}", "http://user:secret@{}"])
async def test_a_proxy_leads_to_s3(
    seaweed: SeaweedFS,
    https: str,
    certificate: Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    """As the environment has it for other programs: by all requests, and by none with NO_PROXY."""
    ca_file = str(certificate.authority)
    async with _tunnels() as (host, wanted):
        monkeypatch.setenv("HTTPS_PROXY", form.format(host))
        async with opened(seaweed, endpoint_url=https, ca_file=ca_file) as bucket:
            await _use(bucket, tmp_path)
        assert len(wanted) >= 2  # by our session, and by aiobotocore's
        assert set(wanted) == {urlsplit(https).netloc}

        wanted.clear()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        async with opened(seaweed, endpoint_url=https, ca_file=ca_file) as bucket:
            await _use(bucket, tmp_path)
        assert wanted == []


@asynccontextmanager
async def _tunnels() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy, and whom it was asked to connect to."""
    wanted: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        _, target, _ = head.split(" ", 2)
        wanted.append(target)
        host, _, port = target.rpartition(":")
        behind, to_behind = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, to_behind), pump(behind, writer))

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", wanted


async def test_the_password_of_a_proxy_is_not_told(
    seaweed: SeaweedFS, https: str, tried_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By any failure, for failures go into logs with all that has caused them."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@{host}:{port}")
        async with opened(seaweed, endpoint_url=https) as bucket:
            for ask in (bucket.read("a"), keys(bucket, "")):
                with pytest.raises(Unavailable) as told:
                    await ask
                text = "".join(traceback.format_exception(told.value))
                assert "407" in text
                assert "secret" not in text


async def test_an_authority_that_nobody_knows_is_said_in_one_sentence(
    seaweed: SeaweedFS, https: str, tried_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is wrong with the certificate."""
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    async with opened(seaweed, endpoint_url=https) as bucket:
        with pytest.raises(StorageInvalid) as told:
            await probe(bucket)

    says = str(told.value)
    assert says.startswith(f"there is no trusted TLS connection to {https}: ")
    assert "certificate verify failed" in says
    assert "\n" not in says


@pytest.mark.parametrize(
    ("path_style", "host", "path"), [(True, "", "/cache"), (False, "cache.", "")]
)
async def test_the_bucket_is_in_the_path_or_in_the_host(
    seaweed: SeaweedFS, everywhere: None, tried_once: None, path_style: bool, host: str, path: str
) -> None:
    """In all requests. The host is signed, so the proxy's S3 takes none of them."""
    async with S3Proxy.running(seaweed.endpoint) as proxy:
        at = f"s3.test:{urlsplit(proxy.url).port}"
        async with opened(
            seaweed,
            endpoint_url=f"http://{at}",
            path_style=path_style,
            prefix="p/",
        ) as bucket:
            for ask in (bucket.read("a"), keys(bucket, "")):
                try:
                    await ask
                except Unavailable:
                    assert not path_style
            url = await bucket.url("a", 60)

    assert url is not None
    assert url.startswith(f"http://{host}{at}{path}/p/a?")
    first, *others = proxy.calls
    assert others
    assert first.target.startswith(f"{path}/p/a?")
    assert {call.headers["Host"] for call in proxy.calls} == {host + at}


async def test_a_bucket_of_aws_is_asked_for_in_its_region(seaweed: SeaweedFS) -> None:
    """The host that is the same for all regions redirects, or does not know a new bucket."""
    async with opened(seaweed, endpoint_url=None, region="eu-west-1", path_style=False) as bucket:
        url = await bucket.url("a", 60)

    assert urlsplit(url or "").netloc == "cache.s3.eu-west-1.amazonaws.com"


async def test_a_host_with_the_bucket_that_is_not_there_is_said(
    seaweed: SeaweedFS, tried_once: None
) -> None:
    """For the setting that helps is another one than the address."""
    url = "http://s3.invalid"
    async with opened(seaweed, endpoint_url=url, path_style=False) as bucket:
        with pytest.raises(StorageInvalid, match=r"host cache\.s3\.invalid .* path_style"):
            await probe(bucket)
