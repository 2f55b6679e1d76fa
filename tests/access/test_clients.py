"""Which client is asking, in a name."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from cacheproxy.access.clients import OTHER, UNKNOWN, ClientNames, Clients
from cacheproxy.access.identity import NOBODY, Identity


def _clients(
    header: str = "",
    networks: dict[str, str] | None = None,
    trusted: tuple[str, ...] = (),
    names: int = 10,
) -> Clients:
    named = {ip_network(network): name for network, name in (networks or {}).items()}
    return Clients(ClientNames(names), header, named, list(map(ip_network, trusted)))


def test_a_user_is_known_by_the_name_that_was_proven() -> None:
    """Whatever else the request says."""
    clients = _clients("X-Runner", {"10.0.0.0/8": "office"})

    assert clients.name(Identity("ci"), {"X-Runner": "me"}, "10.0.0.1") == "ci"


def test_a_header_names_who_is_no_user() -> None:
    """Before the network does."""
    clients = _clients("X-Runner", {"10.0.0.0/8": "office"})

    assert clients.name(NOBODY, {"X-Runner": "runner-1"}, "10.0.0.1") == "runner-1"
    assert clients.name(NOBODY, {}, "10.0.0.1") == "office"


@pytest.mark.parametrize("name", [OTHER, UNKNOWN])
def test_what_has_a_meaning_of_its_own_is_no_name(name: str) -> None:
    """Else who claims it would be taken for clients that found no room."""
    assert _clients("X-Runner").name(NOBODY, {"X-Runner": name}, "10.0.0.1") == UNKNOWN


def test_a_header_that_is_not_configured_names_nobody() -> None:
    """Nothing is believed that was not asked for."""
    assert _clients().name(NOBODY, {"": "runner-1", "X-Runner": "runner-1"}, "10.0.0.1") == UNKNOWN


def test_the_smallest_network_names_a_client() -> None:
    """However they are ordered."""
    clients = _clients("", {"10.0.0.0/8": "office", "10.1.0.0/16": "lab", "10.1.2.3/32": "bench"})

    names = [clients.name(NOBODY, {}, each) for each in ("10.9.9.9", "10.1.9.9", "10.1.2.3")]

    assert names == ["office", "lab", "bench"]


@pytest.mark.parametrize("address", ["192.0.2.1", "", "unix:", "2001:db8::1"])
def test_an_address_never_is_a_name(address: str) -> None:
    """There may be millions of them, and they are personal."""
    assert _clients("X-Runner", {"10.0.0.0/8": "office"}).name(NOBODY, {}, address) == UNKNOWN


def test_an_address_of_version_4_is_the_same_by_way_of_version_6() -> None:
    """As a server sees it that listens on `[::]`."""
    assert _clients("", {"10.0.0.0/8": "office"}).name(NOBODY, {}, "::ffff:10.0.0.1") == "office"


def test_only_so_many_names_have_room() -> None:
    """Whoever came first keeps its name."""
    clients = _clients("X-Runner", names=2)

    names = [clients.name(NOBODY, {"X-Runner": name}, "") for name in ("a", "b", "c", "a")]

    assert names == ["a", "b", OTHER, "a"]


@pytest.mark.parametrize("name", ["x" * 65, "a\nb", "\udcff", "\u2028"])
def test_a_name_that_nobody_could_read_is_none(name: str) -> None:
    """It would go into logs and metrics as it is."""
    assert _clients("X-Runner").name(NOBODY, {"X-Runner": name}, "") == OTHER


def test_processes_share_the_room(tmp_path: Path) -> None:
    """The limit is for all, and a name that one has the others have too."""
    one, other = (ClientNames(2, str(tmp_path / "names")) for _ in range(2))

    found = [one.of("a"), other.of("b"), one.of("c"), other.of("c"), one.of("b"), other.of("a")]

    assert found == ["a", "b", OTHER, OTHER, "b", "a"]


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ((), "10.0.0.1"),
        (("192.0.2.7",), "192.0.2.7"),
        (("198.51.100.1, 192.0.2.7",), "192.0.2.7"),
        (("192.0.2.7, 10.0.0.2",), "192.0.2.7"),
        (("192.0.2.7", "10.0.0.2"), "192.0.2.7"),
        (("192.0.2.7:4711",), "192.0.2.7"),
        (("[2001:db8::1]:4711",), "2001:db8::1"),
        (("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        (("nonsense",), "10.0.0.1"),
        (("192.0.2.7, nonsense, 10.0.0.2",), "10.0.0.2"),
    ],
)
def test_proxies_that_are_trusted_tell_where_a_request_is_from(
    forwarded: tuple[str, ...], found: str
) -> None:
    """The last address that none of them is; what that one claims in turn is not believed."""
    assert _clients(trusted=("10.0.0.0/24",)).address(forwarded, "10.0.0.1") == found


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/24",)])
def test_nobody_else_is_believed_where_a_request_is_from(trusted: tuple[str, ...]) -> None:
    """Anybody can send the header."""
    assert _clients(trusted=trusted).address(("10.0.0.9",), "192.0.2.1") == "192.0.2.1"
