"""Bearer tokens: signed by one key, and read with that key and its own algorithm only."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cacheproxy.access.htpasswd import AccessInvalid
from cacheproxy.access.identity import Identity
from cacheproxy.access.scope import Grant, from_claim, to_claim
from cacheproxy.errors import Unauthorized

ISSUER: Final = "cacheproxy"

_SKEW: Final = 10.0
"""Seconds by which the clocks of replicas may differ."""

# Times are looked at with our own clock.
_CHECKED: Final[Any] = {
    "require": ["exp", "nbf", "aud", "iss", "access"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}

SigningKey = EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is the token itself; times are in seconds."""

    text: str
    issued: float
    seconds: int


def new_key() -> SigningKey:
    return generate_private_key(SECP256R1())


def read_key(pem: bytes) -> SigningKey:
    """The key in a PEM file. Raises AccessInvalid, without a word of the file."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise AccessInvalid("it is not a private key in PEM without a password") from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise AccessInvalid("its key is neither of the curve P-256 nor Ed25519")


class Tokens:
    """Issues the tokens of one `service`, good for `seconds`, and reads them."""

    def __init__(
        self, key: SigningKey, service: str, seconds: int, clock: Callable[[], float]
    ) -> None:
        self.service = service
        self._key = key
        self._public = key.public_key()
        self._algorithm = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
        self._seconds = seconds
        self._clock = clock

    def issue(self, user: str | None, grants: Iterable[Grant]) -> Token:
        now = int(self._clock())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": self.service,
            "iat": now,
            "nbf": now,
            "exp": now + self._seconds,
            "jti": uuid4().hex,
            "access": to_claim(grants),
        }
        if user is not None:
            claims["sub"] = user
        return Token(jwt.encode(claims, self._key, self._algorithm), now, self._seconds)

    def read(self, text: str) -> tuple[Identity, float]:
        """Whose token it is, and until when. Raises Unauthorized."""
        try:
            claims = jwt.decode(
                text,
                self._public,
                algorithms=[self._algorithm],  # never what the token says
                audience=self.service,
                issuer=ISSUER,
                options=_CHECKED,
            )
        except jwt.PyJWTError:
            raise Unauthorized("this is no token of this registry", "invalid_token") from None
        now, until = self._clock(), claims["exp"] + _SKEW
        if not claims["nbf"] - _SKEW <= now < until:
            raise Unauthorized("the token has expired", "invalid_token")
        return Identity(claims.get("sub"), from_claim(claims["access"])), until
