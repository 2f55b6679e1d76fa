"""The registry against the specification's own test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.conformance import Conformance
from tests.server import Server

_CANCEL = (
    "OCI Conformance Test/sha256 blobs/post cancel/blob-post-cancel",
    "OCI Conformance Test/sha512 blobs/post cancel/blob-post-cancel",
)


@pytest.mark.parametrize(
    ("version", "skipped", "passed"),
    [("dev", (), 800), ("1.1", _CANCEL, 700)],
    ids=["dev", "1.1"],
)
def test_nothing_in_the_conformance_suite_fails_or_is_skipped(
    server: Server, tmp_path: Path, version: str, skipped: tuple[str, ...], passed: int
) -> None:
    """Everything in the specification works, its optional parts and its main branch included;
    skipped is only what the released version does not have."""
    outcome = Conformance.of(server.host, tmp_path / "conformance", version)

    assert outcome.failures == ()
    assert outcome.skipped == skipped
    assert outcome.left_out == len(skipped)
    assert outcome.passed > passed
