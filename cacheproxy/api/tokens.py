"""Tokens on the wire: by GET as docker, skopeo and crane ask, by POST as BuildKit does first.

Neither is in the distribution spec; they are docker's "Token Authentication Specification" and its
"OAuth2 Token Authentication". Whoever sends no credentials is given a token for what is open to
everybody, because clients ask for one before they ask for anything else.
"""

import json
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from cacheproxy.access.control import Access, to_basic
from cacheproxy.access.scope import parse_scopes
from cacheproxy.access.tokens import Token
from cacheproxy.api.call import Call
from cacheproxy.api.streaming import Intake
from cacheproxy.errors import BlobTooLarge, RequestInvalid, Unauthorized, Unsupported

_FORM_BYTES: Final = 64 << 10


class TokensApi:
    def __init__(self, access: Access, intake: Intake) -> None:
        self._access = access
        self._intake = intake

    async def get(self, call: Call) -> web.StreamResponse:
        return await self._issue(call, call.all("scope"))

    async def post(self, call: Call) -> web.StreamResponse:
        """The form holds the password; tokens to refresh with are neither given nor taken."""
        form = await self._form(call)
        grant = _first(form, "grant_type")
        if grant != "password":
            raise Unsupported(f"grant_type is {grant!r:.100}; only password is taken")
        user, password = _first(form, "username"), _first(form, "password")
        if not (user and password) or ":" in user:
            raise Unauthorized("the user name or the password is missing")
        return await self._issue(call, form.get("scope", []), to_basic(user, password))

    async def _issue(
        self, call: Call, scopes: list[str], credentials: str | None = None
    ) -> web.Response:
        if credentials is None:
            credentials = call.request.headers.get("Authorization")
        call.identity = await self._access.identify(credentials)
        token = self._access.token(call.identity, parse_scopes(scopes))
        return web.Response(
            headers={"Content-Type": "application/json", "Cache-Control": "no-store"},
            body=json.dumps(_told(token)).encode(),
        )

    async def _form(self, call: Call) -> dict[str, list[str]]:
        try:
            text = await self._intake.body(call, _FORM_BYTES).read()
            return parse_qs(text.decode(), keep_blank_values=True, max_num_fields=100)
        except (BlobTooLarge, ValueError):
            raise RequestInvalid("this is no form that asks for a token") from None


def _first(form: dict[str, list[str]], name: str) -> str:
    return form.get(name, [""])[0]


def _told(token: Token) -> dict[str, str | int]:
    """Either name is asked for by some client."""
    return {
        "token": token.text,
        "access_token": token.text,
        "expires_in": token.seconds,
        "issued_at": datetime.fromtimestamp(token.issued, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
