"""The README says what the code does."""

from __future__ import annotations

import re

import yaml
from prometheus_client.metrics import MetricWrapperBase

from cacheproxy.settings import Setting, settings
from cacheproxy.telemetry import Metrics
from tests.readme import README


def test_the_table_of_settings_is_the_one_in_the_code() -> None:
    """README.md lists every setting with its flag, variable, default and meaning."""
    table = README.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0]

    assert table.splitlines()[2:] == [_row(setting) for setting in settings()]


def test_the_table_of_metrics_is_the_one_in_the_code() -> None:
    """README.md lists every metric that a scrape shows, with its labels, and no other."""
    rows = re.findall(r"^\| `(cacheproxy_\w+)` \| (.*?) ?\|", README, re.MULTILINE)
    listed = {name: re.findall(r"`(\w+)`", labels) for name, labels in rows}
    shown = {
        name + "_total" * (metric._type == "counter"): list(metric._labelnames)
        for metric, (name, *_) in Metrics()._registry._collector_to_names.items()
        if isinstance(metric, MetricWrapperBase)
    }

    assert listed == shown


def test_what_is_shown_as_yaml_is_yaml() -> None:
    """Settings, values of the chart and pipelines can be pasted."""
    shown = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

    assert len(shown) == README.count("```yaml")
    assert all(isinstance(yaml.safe_load(each), dict) for each in shown)


def _row(setting: Setting) -> str:
    return (
        f"| `{setting.key}` | `{setting.flag}` | `{setting.variable}` | `{setting.told_default}` "
        f"| {setting.help} |"
    )
