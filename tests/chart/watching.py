"""What the chart brings for Prometheus and Grafana."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tests.chart.schema import CHART

RULES: Final = CHART / "rules.yaml"
DASHBOARD: Final = CHART / "dashboards" / "cacheproxy.json"


@dataclass(frozen=True, slots=True)
class Query:
    """A question of a panel, as Grafana has it, with variables."""

    panel: str
    expression: str

    def asked(self, *, window: str, span: str) -> str:
        """What Grafana asks Prometheus, for all jobs and clients."""
        text = self.expression
        for variable in ("$job", "$client"):
            text = text.replace(variable, ".*")
        return text.replace("$__rate_interval", window).replace("$__range", span)


def rules(text: str | None = None) -> list[dict[str, Any]]:
    """All rules, of a file or of the chart's own."""
    groups = yaml.safe_load(text or RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> list[str]:
    """The series that rules record."""
    return [rule["record"] for rule in rules() if "record" in rule]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard, without its rows."""
    board = json.loads(DASHBOARD.read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    return [
        Query(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]
    ]
