"""What a client is told that needs other credentials (docker's token spec, RFC 6750, RFC 7617)."""

import re
from typing import Final

from aiohttp import web

from cacheproxy.access.policy import Action
from cacheproxy.access.scope import scope_of
from cacheproxy.api.call import Call

TOKEN_PATH: Final = "/token"

_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class Challenges:
    """`public_url` is where clients reach this registry; without one it is where they asked."""

    def __init__(self, public_url: str, service: str) -> None:
        self._public_url = public_url.rstrip("/")
        self._service = service

    def ask(self, response: web.Response, call: Call, action: Action | None, problem: str) -> None:
        """Say where there are tokens, and what for; or ask for a password where there are."""
        if action is None:
            self.ask_for_password(response)
            return
        told = {"realm": self._base(call.request) + TOKEN_PATH, "service": self._service}
        if call.name is not None:
            told["scope"] = scope_of(action.value, call.name)
        elif call.endpoint == "catalog":
            told["scope"] = "registry:catalog:*"
        if problem:
            told["error"] = problem
        parameters = ",".join(f'{name}="{value}"' for name, value in told.items())
        response.headers["WWW-Authenticate"] = f"Bearer {parameters}"

    def ask_for_password(self, response: web.Response) -> None:
        response.headers["WWW-Authenticate"] = f'Basic realm="{self._service}", charset="UTF-8"'

    def _base(self, request: web.BaseRequest) -> str:
        if self._public_url:
            return self._public_url
        host = request.headers.get("Host", "")
        return f"{request.scheme}://{host if _HOST.fullmatch(host) else 'localhost'}"
