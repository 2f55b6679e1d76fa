"""The real Helm, and what it makes of the chart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.chart.schema import CHART
from tests.real.home import Home
from tests.real.process import require

RELEASE: Final = "ci"

_CUSTOM: Final = Path(__file__).parent / "schemas"
_ID: Final = re.compile(r',\s*"\$id": "[^"]*"')
_FILE: Final = "{{ .ResourceKind }}{{ .KindSuffix }}.json"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The manifests of a release."""

    text: str

    @property
    def manifests(self) -> list[dict[str, Any]]:
        return [one for one in yaml.safe_load_all(self.text) if one is not None]

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        """The only manifest of its kind, or of those the one with this name."""
        (found,) = (
            one
            for one in self.manifests
            if one["kind"] == kind and name in ("", one["metadata"]["name"])
        )
        return found

    @property
    def kinds(self) -> list[str]:
        return sorted(one["kind"] for one in self.manifests)

    @property
    def pod(self) -> dict[str, Any]:
        """The specification of the pods."""
        return dict(self.one("Deployment")["spec"]["template"]["spec"])

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.pod["containers"]
        return dict(only)

    @property
    def settings(self) -> str:
        """The file of settings that the server is given."""
        (config,) = (
            one
            for one in self.manifests
            if one["kind"] == "ConfigMap" and "cacheproxy.yaml" in one["data"]
        )
        return str(config["data"]["cacheproxy.yaml"])


class Helm:
    """`component` is the version, see `tests.components`."""

    def __init__(self, folder: Path, component: str, kubernetes: str = "1.34.0") -> None:
        self._home = Home(folder)
        self._values = folder / "values.yaml"
        self._binary = f"{component}/helm"
        self._version = f"--kube-version={kubernetes}"

    def lint(self, values: dict[str, Any]) -> None:
        """Raise `CommandError` if the chart is not right with these values."""
        self._run("lint", "--strict", self._version, str(CHART), values=values)

    def template(self, values: dict[str, Any]) -> Rendered:
        """The manifests for these values; raise `CommandError` if they are refused."""
        return Rendered(self._run("template", self._version, RELEASE, str(CHART), values=values))

    def notes(self, values: dict[str, Any]) -> str:
        """What is told after an installation; Helm 3 would ask a cluster for that."""
        return self._run("install", RELEASE, str(CHART), "--dry-run=client", values=values)

    def _run(self, *arguments: str, values: dict[str, Any]) -> str:
        self._values.write_text(yaml.safe_dump(values))
        return self._home.run(self._binary, *arguments, f"--values={self._values}")


class Kubeconform:
    """Checks manifests by the schemas of a version of Kubernetes, strictly."""

    def __init__(self, folder: Path, kubernetes: str) -> None:
        self._home = Home(folder)
        self._manifests = folder / "manifests.yaml"
        package = require("kubernetes-validate").parent.parent / "kubernetes_validate"
        schemas = folder / "schemas"
        schemas.mkdir()
        for path in (package / "kubernetes-json-schema" / f"v{kubernetes}-local-strict").iterdir():
            # They refer to each other by addresses: as files of one folder they are found.
            text = path.read_text().replace('"/api/_definitions.json#', '"_definitions.json#')
            (schemas / path.name).write_text(_ID.sub("", text))
        places = [f"-schema-location={place / _FILE}" for place in (schemas, _CUSTOM)]
        self._options = ("-strict", f"-kubernetes-version={kubernetes}", *places)

    def check(self, text: str) -> None:
        """Raise `CommandError` unless every manifest is known and right."""
        self._manifests.write_text(text)
        self._home.run("kubeconform", *self._options, str(self._manifests))
