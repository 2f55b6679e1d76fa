"""The OCI distribution specification's own conformance test."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from tests.real.home import Home
from tests.real.process import attempt, require


@dataclass(frozen=True, slots=True)
class Failure:
    """One behaviour that is not as the specification wants it."""

    test: str
    reason: str


@dataclass(frozen=True, slots=True)
class Conformance:
    """The outcome of the whole test."""

    passed: int
    skipped: tuple[str, ...]
    failures: tuple[Failure, ...]

    @classmethod
    def of(cls, host: str, folder: Path, **settings: str) -> Conformance:
        """Test the registry `host`, with every optional part of the specification included.

        `settings` are more of the test's environment variables; its reports are left in `folder`.
        """
        home = Home(folder / "home")
        environment = home.environment | _settings(host, folder) | settings
        output = attempt([str(require("conformance"))], environment=environment, seconds=240)
        report = folder / "junit.xml"
        if not report.exists():
            raise AssertionError(output.stdout + output.stderr)
        return cls._read(report)
