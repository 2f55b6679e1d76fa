"""The one door: who sent these credentials, and may they do this?

Credentials that were found good are remembered for a while by their HMAC, under a secret of the
process, so that most requests cost a look into a table. The policy is asked every time; so is
whether the user still exists. A new policy or new passwords count from the next request on.
"""

import asyncio
import base64
import binascii
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cacheproxy.access.htpasswd import Passwords
from cacheproxy.access.identity import NOBODY, Identity
from cacheproxy.access.policy import Action, Policy
from cacheproxy.access.scope import CATALOG, Grant
from cacheproxy.access.tokens import Token, Tokens
from cacheproxy.errors import Denied, EndpointUnknown, Unauthorized, Unavailable
from cacheproxy.oci.reference import Repository
from cacheproxy.storage.blocking import in_thread

PASSWORD_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 300.0

_REMEMBERED: Final = 10_000
_AT_ONCE: Final = 2  # each is a processor's work for a tenth of a second
_WAITING: Final = 200

_WRONG: Final = "the user name or the password is wrong"


class Access(Protocol):
    """What every request asks before anything is done for it."""

    async def identify(self, credentials: str | None) -> Identity:
        """Whoever sent `credentials`, an Authorization header.

        Raises:
            Unauthorized: they are not good.
        """

    def authorize(self, identity: Identity, action: Action, repository: Repository | None) -> None:
        """Return if `identity` may do this.

        `repository` is None for what concerns the registry as a whole: its version, its catalog
        (which shows only what is `visible`), and its metrics.

        Raises:
            Unauthorized: with other credentials it might be allowed.
            Denied: it is not.
        """

    def visible(self, identity: Identity, repository: Repository) -> bool:
        """Whether a list of repositories shows this one."""

    def may_push(self, user: str | None, repository: Repository) -> bool:
        """Whether a user who has pushed, or with None somebody unknown, still might."""

    def token(self, identity: Identity, wanted: frozenset[Grant]) -> Token:
        """A token for what of `wanted` is allowed.

        Raises:
            Unauthorized: it is a token that `identity` is known by.
            EndpointUnknown: there are no tokens here.
        """


class OpenAccess:
    """Everybody may do everything."""

    async def identify(self, credentials: str | None) -> Identity:
        return NOBODY

    def authorize(self, identity: Identity, action: Action, repository: Repository | None) -> None:
        return

    def visible(self, identity: Identity, repository: Repository) -> bool:
        return True

    def may_push(self, user: str | None, repository: Repository) -> bool:
        return True

    def token(self, identity: Identity, wanted: frozenset[Grant]) -> Token:
        raise EndpointUnknown("this registry is open: no token is needed")


@dataclass(frozen=True, slots=True)
class _Remembered:
    identity: Identity
    until: float


class ControlledAccess:
    """Passwords and tokens say who it is, and the policy what they may."""

    def __init__(
        self, passwords: Passwords, policy: Policy, tokens: Tokens, clock: Callable[[], float]
    ) -> None:
        self._passwords = passwords
        self._policy = policy
        self._tokens = tokens
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._verifying: dict[bytes, asyncio.Task[bool]] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def replace(self, passwords: Passwords, policy: Policy) -> None:
        """Go by these from now on; every password is looked at anew."""
        self._passwords, self._policy = passwords, policy
        self._remembered.clear()
        self._verifying.clear()

    async def identify(self, credentials: str | None) -> Identity:
        if credentials is None:
            return NOBODY
        key = self._key(credentials)
        known = self._remembered.get(key)
        if known is None or known.until <= self._clock():
            known = await self._recognize(key, credentials)
        user = known.identity.user
        if user is not None and user not in self._passwords:
            raise Unauthorized(f"there is no user {user} any more", "invalid_token")
        return known.identity

    def authorize(self, identity: Identity, action: Action, repository: Repository | None) -> None:
        if repository is None and action is not Action.METRICS:
            if identity is NOBODY:
                raise Unauthorized("credentials are needed, or a token for anybody")
            return
        if not self._policy.allows(identity.user, action, repository):
            told = f"{identity} may not {_told(action, repository)}"
            if identity.user is None:
                raise Unauthorized(told, "" if identity is NOBODY else "insufficient_scope")
            raise Denied(told)
        if not identity.covers(action.value, repository):
            raise Unauthorized(
                f"the token is not for this: {_told(action, repository)}", "insufficient_scope"
            )

    def visible(self, identity: Identity, repository: Repository) -> bool:
        if not (identity.covers_catalog or identity.covers(Action.PULL.value, repository)):
            return False
        return self._policy.allows(identity.user, Action.PULL, repository)

    def may_push(self, user: str | None, repository: Repository) -> bool:
        return may_push(self._passwords, self._policy, user, repository)

    def token(self, identity: Identity, wanted: frozenset[Grant]) -> Token:
        if identity.grants is not None:
            raise Unauthorized("a token is had for a password, not for another token")
        granted = [
            (name, action)
            for name, action in wanted
            if (name, action) == CATALOG
            or self._policy.allows(identity.user, Action(action), Repository(name))
        ]
        return self._tokens.issue(identity.user, granted)

    async def _recognize(self, key: bytes, credentials: str) -> _Remembered:
        """Find out whose credentials these are, and remember it unless things change meanwhile."""
        scheme, _, value = credentials.partition(" ")
        passwords = self._passwords
        if scheme.lower() == "bearer":
            identity, until = self._tokens.read(value.strip())
            known = _Remembered(identity, min(until, self._clock() + TOKEN_SECONDS))
        elif scheme.lower() == "basic":
            user, password = parse_basic(value)
            if not await self._fits(key, user, password):
                raise Unauthorized(_WRONG)
            known = _Remembered(Identity(user), self._clock() + PASSWORD_SECONDS)
        else:
            raise Unauthorized("credentials are Basic or Bearer")
        if passwords is self._passwords:
            self._remembered[key] = known
            self._remembered.move_to_end(key)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return known

    async def _fits(self, key: bytes, user: str, password: str) -> bool:
        """Whether it is the user's password; many who ask that at once are answered by one look."""
        job = self._verifying.get(key)
        if job is None:
            if len(self._verifying) >= _WAITING:
                raise Unavailable("too many passwords are being looked at")
            job = asyncio.create_task(self._look(self._passwords, user, password))
            self._verifying[key] = job
            job.add_done_callback(lambda done: self._looked(key, done))
        return await asyncio.shield(job)

    async def _look(self, passwords: Passwords, user: str, password: str) -> bool:
        async with self._turn:
            return await in_thread(passwords.fits, user, password)

    def _looked(self, key: bytes, done: asyncio.Task[bool]) -> None:
        if self._verifying.get(key) is done:
            del self._verifying[key]

    def _key(self, credentials: str) -> bytes:
        return hmac.digest(self._secret, credentials.encode("utf-8", "surrogateescape"), "sha256")


def may_push(
    passwords: Passwords, policy: Policy, user: str | None, repository: Repository
) -> bool:
    """Whether a user, or with None somebody unknown, is there and may push."""
    known = user is None or user in passwords
    return known and policy.allows(user, Action.PUSH, repository)


def parse_basic(value: str) -> tuple[str, str]:
    """User and password of Basic credentials (RFC 7617). Raises Unauthorized."""
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise Unauthorized("the credentials are not Basic as RFC 7617 has it") from None
    if not (user and colon):
        raise Unauthorized(_WRONG)
    return user, password


def to_basic(user: str, password: str) -> str:
    """Basic credentials, as a header has them."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _told(action: Action, repository: Repository | None) -> str:
    if action is Action.METRICS:
        return "see metrics"
    preposition = {Action.PULL: "pull from", Action.PUSH: "push to"}.get(action, "delete from")
    return f"{preposition} {repository}"
