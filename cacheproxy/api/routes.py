"""Which request goes where: one table of the spec's endpoints (distribution-spec, "Endpoints").

Paths are taken apart from their end, because a repository may be called `blobs/tags/list`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from urllib.parse import unquote

from aiohttp import web

from cacheproxy.access.policy import Action
from cacheproxy.api.call import Call
from cacheproxy.errors import EndpointUnknown, MethodUnsupported
from cacheproxy.oci.reference import Repository

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Noun(Enum):
    """What the path of a request names."""

    BASE = "/v2/"
    CATALOG = "/v2/_catalog"
    BLOB = "/v2/<name>/blobs/<digest>"
    UPLOADS = "/v2/<name>/blobs/uploads/"
    UPLOAD = "/v2/<name>/blobs/uploads/<session>"
    MANIFEST = "/v2/<name>/manifests/<reference>"
    TAGS = "/v2/<name>/tags/list"
    REFERRERS = "/v2/<name>/referrers/<digest>"
    TOKEN = "/token"


@dataclass(frozen=True, slots=True)
class Route:
    """`endpoint` is the spec's number of it, and the label of its metrics.

    `action` is what must be allowed to whoever asks; None where the handler itself finds out.
    """

    endpoint: str
    action: Action | None
    handler: Handler


Routes = Mapping[Noun, Mapping[str, Route]]

_repository = lru_cache(1000)(Repository.parse)  # a build asks for a few of them, often

_NOUNS = {"blobs": Noun.BLOB, "manifests": Noun.MANIFEST, "referrers": Noun.REFERRERS}


def parse_path(path: str) -> tuple[Noun, str, str]:
    """The noun of a path, the repository's name as text, and the last part as text.

    Raises:
        EndpointUnknown: no endpoint has such a path.
    """
    if path in ("/v2/", "/v2"):
        return Noun.BASE, "", ""
    if path == "/v2/_catalog":
        return Noun.CATALOG, "", ""
    if path == "/token":
        return Noun.TOKEN, "", ""
    if not path.startswith("/v2/"):
        raise EndpointUnknown("the API is found under /v2/")
    if "%" in path:
        path = unquote(path)
    above, _, target = path[4:].rpartition("/")
    name, _, kind = above.rpartition("/")
    noun = _NOUNS.get(kind) if target else None
    if kind == "uploads" and name.endswith("/blobs"):
        noun, name = (Noun.UPLOAD if target else Noun.UPLOADS), name[:-6]
    elif kind == "blobs" and target == "uploads":
        noun, target = Noun.UPLOADS, ""
    elif kind == "tags" and target == "list":
        noun, target = Noun.TAGS, ""
    if noun is None or not name:
        raise EndpointUnknown("the API has no such path")
    return noun, name, target


def find(routes: Routes, request: web.BaseRequest) -> tuple[Route, Call]:
    """The route of a request, and the call to give to its handler.

    Raises:
        EndpointUnknown, MethodUnsupported, NameInvalid
    """
    path, _, _ = request.raw_path.partition("?")
    noun, name, target = parse_path(path)
    route = routes[noun].get(request.method)
    if route is None:
        raise MethodUnsupported(tuple(routes[noun]))
    repository = _repository(name) if name else None
    return route, Call(request, route.endpoint, repository, target)
