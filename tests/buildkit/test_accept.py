"""What Accept tells, with the headers that BuildKit v0.32 was seen to send."""

from __future__ import annotations

import pytest

from cacheproxy.buildkit.accept import is_for_config, is_of_pusher

_RESOLVE = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"
)


@pytest.mark.parametrize(
    ("accept", "pushes"),
    [
        ("application/vnd.oci.image.manifest.v1+json, */*", True),
        ("application/vnd.oci.image.index.v1+json, */*", True),
        (_RESOLVE, False),
        ("application/vnd.oci.image.manifest.v1+json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_who_pushes_names_one_type(accept: str, pushes: bool) -> None:
    """And who resolves a tag names them all."""
    assert is_of_pusher(accept) is pushes


@pytest.mark.parametrize(
    ("accept", "config"),
    [
        ("application/vnd.buildkit.cacheconfig.v0, */*", True),
        ("application/vnd.oci.image.config.v1+json, */*", True),
        ("application/vnd.docker.container.image.v1+json, */*", True),
        ("application/vnd.oci.image.layer.v1.tar+gzip, */*", False),
        ("", False),
    ],
)
def test_a_config_is_asked_for_by_its_type(accept: str, config: bool) -> None:
    """A layer has another one, and some clients tell nothing."""
    assert is_for_config(accept) is config
