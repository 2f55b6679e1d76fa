"""Fixtures of the commands' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Running, running_in_folder, running_in_s3


@pytest.fixture(params=["folder", "s3"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A running server, in a folder and in S3, with commands beside it."""
    if request.param == "folder":
        with running_in_folder(tmp_path) as running:
            yield running
        return
    seaweed, prefix = (request.getfixturevalue(name) for name in ("seaweed", "s3_prefix"))
    with running_in_s3(tmp_path, seaweed, prefix) as running:
        yield running
