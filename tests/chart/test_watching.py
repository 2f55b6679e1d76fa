"""The rules and the dashboard, by promtool and by what the code has."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cacheproxy.telemetry import Metrics
from tests.chart.watching import DASHBOARD, RULES, alerts, panels, queries, recorded, rules
from tests.real.process import CommandError, require, run

_README = (Path(__file__).parent.parent.parent / "README.md").read_text()
_CASES: Final = Path(__file__).parent / "rules"


def _promtool(*arguments: str) -> str:
    return run((str(require("promtool")), *arguments), environment=os.environ, seconds=60)


def _cases(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load((_CASES / file).read_text())["tests"])


def test_the_rules_have_no_fault() -> None:
    """As Prometheus itself reads them."""
    assert f"{len(rules())} rules found" in _promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("file", ["recordings.yaml", "alerts.yaml"])
def test_the_rules_do_what_their_cases_say(file: str) -> None:
    """Series are recorded, and alerts fire and do not fire, as the file has it."""
    _promtool("test", "rules", str(_CASES / file))


def test_a_rule_that_does_something_else_is_found(tmp_path: Path) -> None:
    """The cases are about these rules, and hold them to it."""
    text = RULES.read_text().replace("> 0.05", "> 0.5")
    (tmp_path / "rules.yaml").write_text(text)
    cases = (_CASES / "alerts.yaml").read_text()
    (tmp_path / "cases.yaml").write_text(
        re.sub(r"rule_files: .*", "rule_files: [rules.yaml]", cases)
    )

    with pytest.raises(CommandError, match="CacheproxyErrors"):
        _promtool("test", "rules", str(tmp_path / "cases.yaml"))


def test_every_rule_has_its_cases() -> None:
    """Of each alert one in which it fires, and one in which it does not."""
    checks = [check for case in _cases("alerts.yaml") for check in case["alert_rule_test"]]
    firing = {check["alertname"] for check in checks if check.get("exp_alerts")}
    silent = {check["alertname"] for check in checks if not check.get("exp_alerts")}
    asked = "\n".join(
        check["expr"] for case in _cases("recordings.yaml") for check in case["promql_expr_test"]
    )

    assert firing == silent == {alert["alert"] for alert in alerts()}
    assert [name for name in recorded() if name not in asked] == []


def test_every_alert_says_what_to_do() -> None:
    """In a line and in some sentences; the README lists them all, each with its severity."""
    listed = re.findall(r"^\| `(Cacheproxy\w+)` \| (\w+) \|", _README, re.MULTILINE)

    assert listed == [(alert["alert"], alert["labels"]["severity"]) for alert in alerts()]
    for alert in alerts():
        assert alert["annotations"].keys() == {"summary", "description"}


def test_rules_and_dashboard_use_the_metrics_that_exist() -> None:
    """Every metric that an alert, a panel or a choice asks for is one that a scrape shows."""
    chosen = json.loads(DASHBOARD.read_text())["templating"]["list"]
    text = "\n".join(
        [
            *(rule["expr"] for rule in rules()),
            *(each.expression for each in queries()),
            *(str(each["query"]) for each in chosen),
        ]
    )
    used = {name.removesuffix("_bucket") for name in re.findall(r"cacheproxy_\w+", text)}
    exposed = Metrics().exposition()[0].decode()
    known = set(re.findall(r"^# TYPE (cacheproxy_\w+)", exposed, re.MULTILINE))

    assert used <= known


def test_every_metric_is_in_a_panel() -> None:
    """What is counted can be looked at."""
    text = "\n".join(each.expression for each in queries())
    exposed = Metrics().exposition()[0].decode()
    known = set(re.findall(r"^# TYPE (cacheproxy_\w+)", exposed, re.MULTILINE))

    assert {name for name in known if name not in text} == set()


def test_panels_ask_the_chosen_source_about_the_chosen_servers() -> None:
    """By the variables of the dashboard, with windows that fit how often it is scraped."""
    for panel in panels():
        assert {each["datasource"]["uid"] for each in (panel, *panel["targets"])} == {
            "${datasource}"
        }
    for query in queries():
        assert re.findall(r"\{(?!job=~\"\$job\")", query.expression) == []
        assert set(re.findall(r"\[(.*?)\]", query.expression)) <= {
            "$__rate_interval",
            "$__range",
            "23",
        }
