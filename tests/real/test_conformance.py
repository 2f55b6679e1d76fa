"""The registry against the specification's own test."""

from __future__ import annotations

from pathlib import Path

from tests.real.conformance import Conformance
from tests.server import Server


def test_nothing_in_the_conformance_suite_fails_or_is_skipped(
    server: Server, tmp_path: Path
) -> None:
    """Everything in the specification works, its optional parts and its main branch included."""
    outcome = Conformance.of(server.host, tmp_path / "conformance")

    assert outcome.failures == ()
    assert outcome.skipped == ()
    assert outcome.passed > 800
