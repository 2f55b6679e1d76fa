"""From settings and files to who may come in, and to TLS: at start, and whenever a file changes.

Once a second the files are looked at: that of the settings, the passwords and the certificate. When
one has changed, all that hangs on them is read anew, off the event loop, and taken up as a whole. A
file that is broken changes nothing: what was in force stays in force, and the log says why.
"""

import os
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from cacheproxy.access.control import Access, ControlledAccess, OpenAccess, may_push
from cacheproxy.access.htpasswd import AccessInvalid, Passwords
from cacheproxy.access.policy import Policy
from cacheproxy.access.tokens import ISSUER, SigningKey, Tokens, new_key, read_key
from cacheproxy.registry.sources import MayPush, anybody_may_push
from cacheproxy.rules import access_policy, check_readers, namespaces
from cacheproxy.settings import Auth, Config, ConfigError
from cacheproxy.storage.blocking import in_thread

log = structlog.get_logger()

_Stamp = tuple[int, int, int] | None

_TURNING: Final = "access control is turned on and off by a restart"


class Security:
    """What is in force. `reload` reads the settings again, `file` is where they come from.

    Raises:
        ConfigError: a file cannot be read, or holds what cannot be used.
    """

    def __init__(self, config: Config, reload: Callable[[], Config], file: str | None) -> None:
        self._reload = reload
        self._file = file
        self._certificate = config.server.tls_cert_file, config.server.tls_key_file
        self._on = config.auth.on
        self._namespaces = namespaces(config.storage)  # those of the start, as everywhere
        self._htpasswd = config.auth.htpasswd_file
        self._seen = self._stamps()
        self.tls = _tls(*self._certificate)
        self._controlled = _controlled(config, self._policy(config.auth)) if self._on else None
        self.access: Access = self._controlled or OpenAccess()

    async def look(self) -> None:
        """Take up what has changed since the last look."""
        seen = self._stamps()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            policy, passwords = await in_thread(self._read)
            if self.tls is not None:
                self.tls.load_cert_chain(*_pair(*self._certificate))
        except (ConfigError, OSError) as error:
            log.error("reload_failed", detail=str(error))
            return
        except Exception:  # whatever a file holds, the next look must come
            log.exception("reload_failed")
            return
        if self._controlled is not None:
            self._controlled.replace(passwords, policy)
        log.info("reloaded", users=len(passwords))

    def _read(self) -> tuple[Policy, Passwords]:
        """All of it, before any of it counts."""
        config = self._reload()
        if config.auth.on != self._on:
            raise ConfigError(_TURNING)
        _tls(*self._certificate)  # one that is half written must not reach connections
        self._htpasswd = config.auth.htpasswd_file  # it may yet have to come
        return self._policy(config.auth), _passwords(config.auth)

    def _policy(self, auth: Auth) -> Policy:
        policy = access_policy(auth)
        check_readers(policy, self._namespaces)
        return policy

    def _stamps(self) -> list[_Stamp]:
        return [_stamp(file) for file in (self._file, self._htpasswd, *self._certificate) if file]


def pushers(auth: Auth) -> MayPush:
    """Who may push, by rules and passwords alone: keys and certificates are for servers.

    Raises:
        ConfigError: the passwords cannot be read, or a rule means nothing.
    """
    if not auth.on:
        return anybody_may_push
    return partial(may_push, _passwords(auth), access_policy(auth))


def service_of(config: Config) -> str:
    """Whom tokens are for: a token of one registry is none of another that has the same key."""
    return config.server.public_url.rstrip("/") or ISSUER


def _controlled(config: Config, policy: Policy) -> ControlledAccess:
    auth = config.auth
    if config.server.workers > 1 and not auth.signing_key_file:
        raise ConfigError("auth.signing_key_file: workers need one, to take each other's tokens")
    tokens = Tokens(_key(auth), service_of(config), auth.token_seconds, time.time)
    return ControlledAccess(_passwords(auth), policy, tokens, time.time)


def _key(auth: Auth) -> SigningKey:
    if not auth.signing_key_file:
        return new_key()
    try:
        return read_key(_content(auth.signing_key_file, "auth.signing_key_file"))
    except AccessInvalid as error:
        raise ConfigError(f"auth.signing_key_file: {error}") from None


def _passwords(auth: Auth) -> Passwords:
    if not auth.htpasswd_file:
        return Passwords({})
    try:
        return Passwords.parse(_content(auth.htpasswd_file, "auth.htpasswd_file").decode())
    except UnicodeDecodeError:
        raise ConfigError("auth.htpasswd_file: it is not text in UTF-8") from None
    except AccessInvalid as error:
        raise ConfigError(f"auth.htpasswd_file: {error}") from None


def _tls(certificate: str, key: str) -> ssl.SSLContext | None:
    if not certificate:
        if key:
            raise ConfigError("server.tls_key_file: there is no server.tls_cert_file")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(*_pair(certificate, key))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"server.tls_cert_file: {error}") from None
    return context


def _pair(certificate: str, key: str) -> tuple[str, str | None]:
    return certificate, key or None


def _content(path: str, setting: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from None


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
