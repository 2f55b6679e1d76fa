"""Tokens: ours are read, and no others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.access.htpasswd import AccessInvalid
from cacheproxy.access.identity import Identity
from cacheproxy.access.tokens import SigningKey, Tokens, new_key, read_key
from cacheproxy.errors import Unauthorized
from tests.access.doors import KEY, SERVICE, Clock, tokens

_GRANTS = frozenset({("ci/app", "pull")})


def _pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _claims(clock: Clock, **other: object) -> dict[str, Any]:
    now = int(clock())
    claims = {"iss": "cacheproxy", "aud": SERVICE, "sub": "runner", "access": []}
    return {**claims, "iat": now, "nbf": now, "exp": now + 300, **other}


def _refused(found: Tokens, text: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        found.read(text)
    assert refused.value.problem == "invalid_token"
    assert len(text) < 20 or text not in str(refused.value)


@pytest.mark.parametrize("key", [KEY, Ed25519PrivateKey.generate()], ids=["ES256", "EdDSA"])
@pytest.mark.parametrize("user", ["runner", None])
def test_a_token_says_who_it_is_and_what_for(key: SigningKey, user: str | None) -> None:
    """By either kind of key, for users and for anybody."""
    found = tokens(Clock(), read_key(_pem(key)))
    token = found.issue(user, _GRANTS)

    identity, until = found.read(token.text)

    assert identity == Identity(user, _GRANTS)
    assert until > token.issued + token.seconds - 1


def test_a_token_has_an_end() -> None:
    """And a beginning; clocks of replicas may differ by seconds."""
    clock = Clock()
    found = tokens(clock)
    text = found.issue("runner", ()).text
    for moment, good in ((-60, False), (-5, True), (299, True), (305, True), (311, False)):
        clock.now = 1_000_000.0 + moment
        if good:
            found.read(text)
        else:
            _refused(found, text)


def test_tokens_of_others_are_refused() -> None:
    """Of another key, another service, another issuer, or without what ours have."""
    clock = Clock()
    found = tokens(clock)
    _refused(found, tokens(clock, new_key()).issue("runner", ()).text)
    _refused(found, tokens(clock, KEY, "https://other.example").issue("runner", ()).text)
    _refused(found, jwt.encode(_claims(clock, iss="other"), KEY, "ES256"))
    for name in ("exp", "nbf", "aud", "iss", "access"):
        claims = _claims(clock)
        del claims[name]
        _refused(found, jwt.encode(claims, KEY, "ES256"))
    found.read(jwt.encode(_claims(clock), KEY, "ES256"))


def _forged(header: dict[str, str], claims: dict[str, Any], secret: bytes | None) -> str:
    parts = [json.dumps(part).encode() for part in (header, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.digest(secret, signed, hashlib.sha256) if secret is not None else b""
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "HS256", "ES256", "RS256"])
def test_a_token_does_not_choose_its_algorithm(algorithm: str) -> None:
    """Neither none, nor HMAC with the public key, which everybody may know, for a secret."""
    clock = Clock()
    found = tokens(clock)
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": algorithm, "typ": "JWT"}
    for secret in (None, public, public.strip(), b""):
        _refused(found, _forged(header, _claims(clock), secret))


def test_a_token_of_another_family_of_keys_is_refused() -> None:
    """One key, one algorithm."""
    clock = Clock()
    other = Ed25519PrivateKey.generate()
    _refused(tokens(clock), tokens(clock, other).issue("runner", ()).text)
    _refused(tokens(clock, other), tokens(clock).issue("runner", ()).text)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_token_with_a_byte_changed_is_refused(place: int, change: int) -> None:
    """Wherever it is. (The last letter of base64 has bits that mean nothing.)"""
    clock = Clock()
    found = tokens(clock)
    text = found.issue("runner", _GRANTS).text
    data = bytearray(text.encode())
    data[place % (len(data) - 1)] ^= change
    _refused(found, data.decode("latin-1"))


@given(st.text())
def test_what_is_no_token_is_refused(text: str) -> None:
    """Without any other error."""
    _refused(tokens(Clock()), text)


def test_a_key_that_cannot_sign_is_refused() -> None:
    """Of another kind, locked, or none; nothing of it is told."""
    locked = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    others = [
        _pem(ec.generate_private_key(ec.SECP384R1())),
        _pem(rsa.generate_private_key(65537, 2048)),
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        locked,
        b"secret",
        b"",
    ]
    for pem in others:
        with pytest.raises(AccessInvalid) as refused:
            read_key(pem)
        assert "secret" not in str(refused.value)
