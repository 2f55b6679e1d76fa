"""What gives out credentials in AWS: STS for web identities, metadata for instances."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from tests.s3.calls import Call

ROLE = "arn:aws:iam::123456789012:role/registry"
_METADATA = "/latest/meta-data/iam/security-credentials/"
_SESSION = "metadata-session"
_ASSUMED = """\
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>{0.access}</AccessKeyId><SecretAccessKey>{0.secret}</SecretAccessKey>
<SessionToken>{0.token}</SessionToken><Expiration>{0.expiration}</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
_REFUSED = """\
<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>Not authorized</Message></Error></ErrorResponse>"""


@dataclass(frozen=True, slots=True)
class Key:
    """Temporary credentials that end after `seconds`."""

    access: str
    secret: str
    token: str
    seconds: int = 3600

    @property
    def expiration(self) -> str:
        return f"{datetime.now(UTC) + timedelta(seconds=self.seconds):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(slots=True)
class FakeAws:
    """Gives out `keys` one after another, the last one again and again, none if there is none."""

    keys: list[Key] = field(default_factory=list)
    assumed: list[tuple[str, str]] = field(default_factory=list)
    """Role and token of who has asked STS."""
    url: str = ""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether STS answers; else it hangs."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeAws]:
        """Serve in this event loop."""
        app = web.Application()
        app.router.add_post("/", self._sts)
        app.router.add_put("/latest/api/token", self._session)
        app.router.add_get(_METADATA, self._role)
        app.router.add_get(_METADATA + "{role}", self._credentials)
        self.open.set()
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = "http://{}:{}".format(*runner.addresses[0])
            yield self
        finally:
            self.open.set()
            await runner.cleanup()

    def _next(self) -> Key | None:
        return self.keys.pop(0) if len(self.keys) > 1 else next(iter(self.keys), None)

    async def _sts(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["Action"] == "AssumeRoleWithWebIdentity"
        self.assumed.append((str(form["RoleArn"]), str(form["WebIdentityToken"])))
        await self.open.wait()
        key = self._next()
        status, text = (403, _REFUSED) if key is None else (200, _ASSUMED.format(key))
        return web.Response(status=status, text=text, content_type="text/xml")

    async def _session(self, request: web.Request) -> web.Response:
        return web.Response(text=_SESSION)

    async def _role(self, request: web.Request) -> web.Response:
        _check_session(request)
        return web.Response(text="registry")

    async def _credentials(self, request: web.Request) -> web.Response:
        _check_session(request)
        key = self._next()
        if key is None or request.match_info["role"] != "registry":
            raise web.HTTPNotFound
        answer = {"Code": "Success", "Type": "AWS-HMAC", "Expiration": key.expiration}
        return web.json_response(
            answer | {"AccessKeyId": key.access, "SecretAccessKey": key.secret, "Token": key.token}
        )


def _check_session(request: web.Request) -> None:
    """As IMDSv2 does, which is all that an instance may have."""
    if request.headers.get("X-aws-ec2-metadata-token") != _SESSION:
        raise web.HTTPUnauthorized


def signed(call: Call) -> tuple[str, str]:
    """Key and token of a request, which are in its query or its headers."""
    if found := re.search(r"Credential=([^/]+)/", call.headers.get("Authorization", "")):
        return found[1], call.headers.get("X-Amz-Security-Token", "")
    return signed_url(call.target)


def signed_url(url: str) -> tuple[str, str]:
    """Key and token of a request that is signed in its query."""
    query = parse_qs(urlsplit(url).query)
    token = query.get("X-Amz-Security-Token", [""])
    return query["X-Amz-Credential"][0].partition("/")[0], token[0]
