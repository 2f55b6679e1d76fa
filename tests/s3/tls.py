"""TLS in front of a server that has none, with certificates of our own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.real.process import require, run

_CHUNK = 64 << 10


@dataclass(frozen=True, slots=True)
class Certificate:
    """One for 127.0.0.1, and the authority that has signed it."""

    file: Path
    key: Path
    authority: Path


def certify(folder: Path) -> Certificate:
    """Make an authority and a certificate that it has signed."""
    made = Certificate(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    authority_key = folder / "ca.key"
    # Python 3.13 and newer want to be told what an authority's key is for.
    usage = "-addext=keyUsage=critical,keyCertSign,cRLSign"
    _make(made.authority, authority_key, "-subj=/CN=authority of the tests", usage)
    _make(
        *(made.file, made.key, "-subj=/CN=s3"),
        *(f"-CA={made.authority}", f"-CAkey={authority_key}"),
        *("-addext=subjectAltName=IP:127.0.0.1", "-addext=basicConstraints=critical,CA:false"),
    )
    return made


@asynccontextmanager
async def tls_before(url: str, certificate: Certificate) -> AsyncIterator[str]:
    """Pass on to `url`, byte for byte, what comes to the URL that is given."""
    upstream = urlsplit(url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.file, certificate.key)
    serving: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.append(task)
        there, back = await asyncio.open_connection(upstream.hostname, upstream.port)
        await asyncio.gather(_pass(reader, back), _pass(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield "https://{}:{}".format(*server.sockets[0].getsockname())
    await asyncio.gather(*serving)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


def _make(file: Path, key: Path, *options: str) -> None:
    named = [part for option in options for part in option.split("=", 1)]
    run(
        [
            *(str(require("openssl")), "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-out", str(file), "-keyout", str(key), *named),
        ],
        environment=os.environ,
        seconds=60,
    )
