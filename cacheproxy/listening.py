"""The socket that the server listens on."""

import ipaddress
import socket


class PortTaken(Exception):
    """Nobody can listen on the address, and why."""


def bind(listen: str, *, shared: bool = False) -> socket.socket:
    """A socket bound to `host:port`; with `shared`, others may bind it too and share the load.

    Raises:
        PortTaken: the address is in use, is not this machine's, or is no address.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise PortTaken(f"server.listen: {listen!r} is not address:port")
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
        raise PortTaken(f"server.listen: cannot listen on {listen}: {error.strerror}") from None
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
