"""The sockets that the server listens on."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Self


class PortTaken(Exception):
    """Nobody can listen on the address, and why."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """The bound sockets of a process: for clients, and for operators if they have one apart."""

    clients: socket.socket
    operators: socket.socket | None

    @classmethod
    def bound(cls, listen: str, metrics: str, *, shared: bool = False) -> Self:
        """For two settings, of which `metrics` may be empty; see `bind`. Raises PortTaken."""
        clients = bind(listen, shared=shared)
        if not metrics:
            return cls(clients, None)
        try:
            return cls(clients, bind(metrics, shared=shared, setting="metrics.listen"))
        except PortTaken:
            clients.close()
            raise

    @property
    def address(self) -> str:
        """Where clients are served."""
        return address_of(self.clients)

    @property
    def metrics_address(self) -> str:
        """Where operators are served, if that is not where clients are."""
        return address_of(self.operators) if self.operators else ""

    def again(self) -> Self:
        """Other sockets of shared ports; the caller closes them."""
        return self.bound(self.address, self.metrics_address, shared=True)

    def close(self) -> None:
        self.clients.close()
        if self.operators is not None:
            self.operators.close()


def bind(listen: str, *, shared: bool = False, setting: str = "server.listen") -> socket.socket:
    """A socket bound to `host:port`; with `shared`, others may bind it too and share the load.

    Raises:
        PortTaken: the address is in use, is not this machine's, or is no address.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise PortTaken(f"{setting}: {listen!r} is not address:port")
    listener: socket.socket | None = None
    try:
        family, kind, *_, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        listener.bind(address)
        if not shared:
            listener.listen()
    except OSError as error:
        if listener is not None:
            listener.close()
        raise PortTaken(f"{setting}: cannot listen on {listen}: {error.strerror}") from None
    return listener


def is_loopback(listen: str) -> bool:
    """Whether only this machine reaches `host:port`."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(listener: socket.socket) -> str:
    """`host:port` of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
