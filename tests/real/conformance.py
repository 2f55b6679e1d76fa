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
    left_out: int
    """How many checks were not made, those within a test that passed included."""

    @classmethod
    def of(cls, host: str, folder: Path, version: str = "dev") -> Conformance:
        """Test the registry `host`, with every optional part of the specification included.

        `version` is the specification's, or `dev` for its main branch; the test's reports are left
        in `folder`.
        """
        home = Home(folder / "home")
        environment = home.environment | _settings(host, folder, version)
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
        suites = ElementTree.parse(report).getroot()
        for case in suites.iter("testcase"):
            name, status = case.get("name", ""), case.get("status")
            if status == "passed":
                passed += 1
            elif status == "skipped":
                skipped.append(name)
            else:
                failures.append(Failure(name, "".join(case.itertext())))
        left_out = sum(int(suites.get(count, "0")) for count in ("skipped", "disabled"))
        return cls(passed, tuple(skipped), tuple(failures), left_out)


def _settings(host: str, folder: Path, version: str) -> dict[str, str]:
    """Every optional part of that version on: what is off by default is what few registries have.

    Cancelled uploads and tags as parameters are only in the main branch, where they are on.
    """
    return {
        "OCI_REGISTRY": host,
        "OCI_TLS": "disabled",
        "OCI_RESULTS_DIR": str(folder),
        "OCI_VERSION": version,
        "OCI_API_BLOBS_DIGEST_HEADER": "true",
        "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
        "OCI_DATA_SPARSE": "true",
    }
