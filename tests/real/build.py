"""What a BuildKit client tells about a build, read from its `--progress=rawjson`."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.real.home import Home
from tests.real.process import attempt, require


class BuildError(Exception):
    """A build failed; the message holds all that the client printed."""

    def __init__(self, build: Build) -> None:
        super().__init__(build.output)
        self.build = build


@dataclass(slots=True)
class Step:
    """One vertex of the build graph, such as `[2/3] RUN make` or `exporting cache to registry`."""

    name: str
    cached: bool = False
    error: str = ""
    log: str = ""


@dataclass(slots=True)
class Build:
    """A finished build."""

    steps: list[Step] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    """What the client said that belongs to no step."""

    @property
    def cached(self) -> list[str]:
        """Names of the Dockerfile's steps that came from a cache."""
        return [step.name for step in self._instructions() if step.cached]

    @property
    def executed(self) -> list[str]:
        """Names of the Dockerfile's steps that were not cached."""
        return [step.name for step in self._instructions() if not step.cached]

    def step(self, fragment: str) -> Step:
        """Return the one step whose name contains `fragment`."""
        found = [step for step in self.steps if fragment in step.name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} steps are named {fragment!r}:\n{self.output}")
        return found[0]

    @property
    def output(self) -> str:
        """All that the client printed, for people to read."""
        lines: list[str] = []
        for step in self.steps:
            lines.append(step.name + (" CACHED" if step.cached else ""))
            lines += [f"  {line}" for line in step.log.splitlines()]
            lines += [f"  ERROR: {step.error}"] if step.error else []
        return "\n".join(lines + self.messages)

    def _instructions(self) -> list[Step]:
        # BuildKit never reports a FROM as cached, whether or not it had to be pulled.
        found = [
            step
            for step in self.steps
            if step.name.startswith("[")
            and not step.name.startswith(("[internal]", "[auth]"))
            and "] FROM " not in step.name
        ]
        if not found:
            raise LookupError(f"the build has no steps:\n{self.output}")
        return found


def run_build(home: Home, binary: str, arguments: Sequence[str], *, seconds: float) -> Build:
    """Run a build client that prints `rawjson`; raise `BuildError` when the build fails."""
    command = (str(require(binary)), *arguments)
    output = attempt(command, environment=home.environment, seconds=seconds)
    build = parse_progress(output.stderr)
    if output.status != 0:
        raise BuildError(build)
    return build


def parse_progress(text: str) -> Build:
    """Read the lines that `--progress=rawjson` prints, each of which tells what has changed."""
    steps: dict[str, Step] = {}
    messages: list[str] = []
    for line in text.splitlines():
        if line.startswith("{"):
            _update(steps, json.loads(line))
        else:
            messages.append(line)
    return Build(list(steps.values()), messages)


def _update(steps: dict[str, Step], change: dict[str, Any]) -> None:
    for vertex in change.get("vertexes", ()):
        step = steps.setdefault(vertex["digest"], Step(vertex["name"]))
        step.cached = step.cached or vertex.get("cached", False)
        step.error = vertex.get("error", step.error)
    for entry in change.get("logs", ()):
        steps[entry["vertex"]].log += base64.b64decode(entry["data"]).decode(errors="replace")
