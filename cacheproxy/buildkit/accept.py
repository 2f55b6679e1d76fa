"""What the Accept header tells of a request of containerd's resolver, which BuildKit has.

Whoever pushes names the one type that it has; whoever resolves a tag names every type of manifests
(core/remotes/docker/{pusher,resolver}.go). Whoever fetches what a tag leads to names one type too,
but does not ask by HEAD. Other clients tell less, and are taken for resolving.
"""

from typing import Final

from cacheproxy.buildkit.cache import CACHE_CONFIG

_CONFIGS: Final = (
    CACHE_CONFIG,
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)


def is_of_pusher(accept: str) -> bool:
    """Whether a HEAD with this header comes from who has a manifest and would push it."""
    named, _, rest = accept.partition(",")
    return rest.strip() == "*/*" and named.startswith("application/")


def is_for_config(accept: str) -> bool:
    """Whether a blob that is asked for with this header is a config."""
    return accept.startswith(_CONFIGS)
