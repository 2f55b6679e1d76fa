"""Rows on TLS: a blob out and in, beside nginx and distribution with the same certificate, and
beside cacheproxy itself without TLS. The same client asks all of them."""

from __future__ import annotations

import mmap
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import peers, table
from benchmarks.content import Body, Content
from benchmarks.load import Done, connect
from benchmarks.peers import Peer
from benchmarks.pushing import touch_memory
from benchmarks.registry import Registry
from benchmarks.samples import Samples, interleave, medians
from benchmarks.scale import Scale
from benchmarks.stored import Stored, write
from tests.s3.tls import Certificate, certify

_BYTES: Final = 64 << 20
_PULLS: Final = 8
_PUSHES: Final = 4
_PLAIN: Final = "without TLS"


class SecureRegistry(Registry):
    """A connection by TLS, of which nothing is left to the kernel."""

    def __init__(self, host: str, context: ssl.SSLContext) -> None:
        self._context = context
        self._buffer = bytearray(1 << 20)
        super().__init__(host)

    def send(self, body: Body, start: int, count: int) -> None:
        kept = body.size - len(body.end)
        with (
            mmap.mmap(body.fd, kept, prot=mmap.PROT_READ) as mapped,
            memoryview(mapped) as view,
            view[start : start + count] as piece,
        ):
            self._socket.sendall(piece)
        if start + count >= body.size:
            self._socket.sendall(body.end)

    def _connect(self) -> socket.socket:
        return self._context.wrap_socket(connect(self.host), server_hostname="127.0.0.1")

    def _write(self, data: bytes, *, more: bool) -> None:
        self._socket.sendall(data)

    def _drop_some(self, most: int) -> int:
        return self._socket.recv_into(self._buffer, min(most, len(self._buffer)))


def tls(folder: Path, scale: Scale) -> None:
    """CPU seconds of the server per GiB, and MiB per second."""
    authority = folder / "authority"
    authority.mkdir()
    certificate = certify(authority)
    context = ssl.create_default_context(cafile=certificate.authority)

    def client(peer: Peer) -> Registry:
        return Registry(peer.host) if peer.name == _PLAIN else SecureRegistry(peer.host, context)

    with closing(Content(_BYTES)) as content:
        body = content.fresh()
        write(folder / "files", Stored.path("blobs", body.digest), body.bytes())
        with _running(folder, certificate) as (nginx, *registries):
            for peer in registries:
                with client(peer) as registry:
                    registry.push(body)
        # Others, since what was pushed has a server arrange its memory, and many are only read.
        with _running(folder, certificate) as (nginx, *registries):
            pulls = (nginx, *registries)
            pulled = interleave(pulls, lambda peer: _pull(client(peer), body), scale.rounds)
            pushed = interleave(registries, lambda peer: _push(client(peer), content), scale.rounds)
    _print("blob GET 64 MiB", pulled, targeted=True)
    _print("push 64 MiB", pushed)


@contextmanager
def _running(folder: Path, certificate: Certificate) -> Iterator[Sequence[Peer]]:
    """nginx and the registries, all with the same certificate except one."""
    file, key = str(certificate.file), str(certificate.key)
    ours = (f"--server-tls-cert-file={file}", f"--server-tls-key-file={key}")
    theirs = {"REGISTRY_HTTP_TLS_CERTIFICATE": file, "REGISTRY_HTTP_TLS_KEY": key}
    with (
        peers.cacheproxy(folder / "cacheproxy", *ours) as secure,
        peers.distribution(folder / "distribution", **theirs) as distribution,
        peers.limit(folder / "nginx", folder / "files", certificate) as nginx,
        peers.cacheproxy(folder / "plain") as plain,
    ):
        yield nginx, secure, distribution, replace(plain, name=_PLAIN)


def _pull(registry: Registry, body: Body) -> Done:
    with registry:
        for _ in range(_PULLS):
            registry.pull(body)
    return Done(_PULLS, _PULLS * body.size)


def _push(registry: Registry, content: Content) -> Done:
    touch_memory(_PUSHES * content.size)
    with registry:
        for _ in range(_PUSHES):
            registry.push(content.fresh())
    return Done(_PUSHES, _PUSHES * content.size)


def _print(row: str, samples: Samples, *, targeted: bool = False) -> None:
    cpu = medians(samples, lambda sample: sample.cpu_per_gib)
    speed = medians(samples, lambda sample: sample.mib_per_second)
    target = table.times(cpu, 1.5, "nginx") if targeted else None
    table.print_line(f"{row} by TLS", "CPU s / GiB", cpu, target)
    table.print_line("", "MiB / s", speed)
    table.print_line(f"{row} {_PLAIN}", "CPU s / GiB", {"cacheproxy": cpu[_PLAIN]})
    table.print_line("", "MiB / s", {"cacheproxy": speed[_PLAIN]})
