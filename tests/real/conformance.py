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

    @classmethod
    def _read(cls, report: Path) -> Conformance:
        passed = 0
        skipped: list[str] = []
        failures: list[Failure] = []
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("name", "")
            if case.get("status") in ("failure", "error"):
                failures.append(Failure(name, "".join(case.itertext())))
            elif case.find("skipped") is not None:
                skipped.append(name)
            else:
                passed += 1
        return cls(passed, tuple(skipped), tuple(failures))


def _settings(host: str, folder: Path) -> dict[str, str]:
    """Every optional part on: what is off by default is what few registries have."""
    return {
        "OCI_REGISTRY": host,
        "OCI_TLS": "disabled",
        "OCI_RESULTS_DIR": str(folder),
        "OCI_VERSION": "dev",
        "OCI_API_BLOBS_DIGEST_HEADER": "true",
        "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
        "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
        "OCI_API_MANIFESTS_TAG_PARAM": "true",
        "OCI_DATA_SPARSE": "true",
    }
