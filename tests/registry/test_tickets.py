"""The names of upload sessions, which only this registry can make."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import BlobUploadUnknown
from cacheproxy.oci.reference import Repository
from cacheproxy.registry.tickets import Tickets, load_secret
from cacheproxy.storage.folder import FolderBucket

_APP = Repository("ci/app")


def _tickets(secret: bytes) -> Tickets:
    return Tickets(secret, 100.0, lambda: 1_000_000.0)


@pytest.fixture
def tickets() -> Tickets:
    return _tickets(b"secret")


def test_ticket_is_good_for_its_repository_alone(tickets: Tickets) -> None:
    """Nobody continues an upload in a repository where it was not begun."""
    ticket = tickets.issue(_APP)
    tickets.check(_APP, ticket)

    for other in ("ci/other", "ci/ap", "ci/appp", "ci"):
        with pytest.raises(BlobUploadUnknown):
            tickets.check(Repository(other), ticket)


def test_ticket_is_good_for_every_server_with_the_secret(tickets: Tickets) -> None:
    """And for none with another one."""
    ticket = tickets.issue(_APP)
    _tickets(b"secret").check(_APP, ticket)

    with pytest.raises(BlobUploadUnknown):
        _tickets(b"other").check(_APP, ticket)


@pytest.mark.parametrize(
    "ticket",
    [
        "",
        "x",
        "../",
        "../../etc/passwd",
        "..",
        ".",
        "a/b",
        "====",
        "\0",
        "\xe4",
        "A" * 40,
        "A" * 9999,
    ],
    ids=lambda ticket: repr(ticket[:12]),
)
def test_ticket_that_was_never_issued_is_unknown(tickets: Tickets, ticket: str) -> None:
    """Rubbish, paths and text that is not even ASCII are unknown uploads, not errors."""
    with pytest.raises(BlobUploadUnknown):
        tickets.check(_APP, ticket)


@pytest.mark.parametrize("place", range(30))
def test_ticket_with_one_other_bit_is_forged(tickets: Tickets, place: int) -> None:
    """Every byte of it is signed or is the signature, its beginning too."""
    raw = bytearray(base64.urlsafe_b64decode(tickets.issue(_APP)))
    raw[place] ^= 1

    with pytest.raises(BlobUploadUnknown):
        tickets.check(_APP, base64.urlsafe_b64encode(raw).decode())


@pytest.mark.parametrize("length", [0, 15, 16, 17, 29])
def test_ticket_with_a_shorter_signature_is_forged(tickets: Tickets, length: int) -> None:
    """A beginning of the right signature is not the signature."""
    raw = base64.urlsafe_b64decode(tickets.issue(_APP))[:length]

    with pytest.raises(BlobUploadUnknown):
        tickets.check(_APP, base64.urlsafe_b64encode(raw).decode())


def test_ticket_in_another_spelling_is_unknown(tickets: Tickets) -> None:
    """Base64 ignores some characters, so one session could have many names; it has one."""
    ticket = tickets.issue(_APP)
    for alias in (ticket + "=", ticket + "====", "." + ticket, ticket[:8] + "/../" + ticket[8:]):
        with pytest.raises(BlobUploadUnknown):
            tickets.check(_APP, alias)


@given(st.text(max_size=60))
def test_ticket_of_any_text_is_unknown(text: str) -> None:
    """Whatever stands in the path, the answer is the same error."""
    with pytest.raises(BlobUploadUnknown):
        _tickets(b"secret").check(_APP, text)


async def test_secret_is_made_once(tmp_path: Path) -> None:
    """Every server of a bucket signs alike, whoever came first, and no two buckets do."""
    buckets = [FolderBucket(str(tmp_path / name)) for name in ("a", "a", "b")]
    first, second, other = [await load_secret(bucket) for bucket in buckets]

    assert first == second != other
    assert len(first) == 32
