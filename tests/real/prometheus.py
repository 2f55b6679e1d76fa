"""Prometheus, which scrapes a server and keeps what it saw."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.exposition import Counted
from tests.real.port import Port
from tests.real.process import CommandError, Daemon, require

_CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: cacheproxy
    basic_auth: {{username: "{user}", password: "{password}"}}
    static_configs: [{{targets: ["{host}"]}}]
"""


class Prometheus:
    """A running Prometheus that scrapes one server each second, as the job `cacheproxy`."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self._daemon = daemon
        self._port = port
        self._began = time.time()

    @classmethod
    @contextmanager
    def running(
        cls, folder: Path, host: str, *, user: str, password: str, rules: Path
    ) -> Iterator[Prometheus]:
        """Scrape `host` with these credentials, and evaluate the rules each second too."""
        config = folder / "prometheus.yml"
        config.write_text(_CONFIG.format(rules=rules, user=user, password=password, host=host))
        log = folder / "prometheus.log"
        with closing(Port()) as port:
            command = (
                str(require("prometheus")),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address={port.host}",
            )
            with Daemon.running(command, environment=os.environ, log=log) as daemon:
                prometheus = cls(daemon, port.number)
                daemon.wait_for(prometheus._is_ready)
                yield prometheus
                daemon.kill_all()

    def shows(self, expression: str, *by: str) -> Counted:
        """The values of an expression now, by these labels of its series."""
        return {
            tuple(each["metric"].get(label, "") for label in by): float(each["value"][1])
            for each in self._ask("query", query=expression)
        }

    def has_shown(self, expression: str) -> bool:
        """Whether an expression had a value, which is a number, at any second since the start."""
        now = time.time()
        start = now - math.ceil(now - self._began)  # so that the last second is now
        span = {"start": str(start), "end": str(now), "step": "1"}
        found = self._ask("query_range", query=expression, **span)
        values = [float(value) for each in found for _, value in each["values"]]
        return any(map(math.isfinite, values))

    def wait_until(self, expression: str) -> None:
        """Return when an expression has a value."""
        self._daemon.wait_for(lambda: self.shows(expression) or None)

    def _ask(self, kind: str, **parameters: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{kind}?{query}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return list(json.load(answer)["data"]["result"])

    def _is_ready(self) -> bool | None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=60).close()
        except OSError:  # it does not listen yet, or answers 503
            return None
        return True


def lint(exposition: str) -> None:
    """Raise `CommandError` if Prometheus finds fault with what a scrape shows."""
    command = (str(require("promtool")), "check", "metrics")
    output = subprocess.run(
        command, input=exposition, capture_output=True, text=True, check=False, timeout=60
    )
    if output.returncode != 0:
        raise CommandError(output.stdout + output.stderr)
