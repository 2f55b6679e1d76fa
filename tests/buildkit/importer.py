"""BuildKit's own importer, as a program that tells what became of many caches."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import Any

import msgspec

from cacheproxy.buildkit.cache import Cache, Config
from cacheproxy.buildkit.config import parse_config, write_config
from cacheproxy.buildkit.manifest import write_cache
from tests.real.process import require

VERSIONS = ("remotecache", "remotecache020")
"""The binaries: of BuildKit v0.32.2 and v0.20.2."""


class Answer(msgspec.Struct):
    """What main.go in tests/components/remotecache prints."""

    outcome: str
    records_in: int
    records_out: int
    found: int
    results: int
    error: str = ""
    config: msgspec.Raw = msgspec.Raw(b"null")

    def reexported(self) -> Config:
        """What a re-export would write."""
        config = parse_config(bytes(self.config))
        assert isinstance(config, Config), config
        return config


def question(cache: Cache, *, times: int = 1, give_back: bool = False) -> bytes:
    """The question for one cache: as it would be served, to be imported `times` times."""
    manifest = json.loads(write_cache(cache).manifest)
    layers = manifest.get("layers") or manifest.get("manifests") or []
    return ask(json.loads(write_config(cache.config)), layers, times=times, give_back=give_back)


def ask(config: Any, layers: Any, *, times: int = 1, give_back: bool = False) -> bytes:
    """The question for a config and descriptors as they are."""
    return msgspec.json.encode(
        {"config": config, "layers": layers, "times": times, "return": give_back}
    )


def import_all(binary: str, questions: Iterable[bytes]) -> list[Answer]:
    """The importer's answers, in order."""
    path = require(binary)
    asked = [each + b"\n" for each in questions]
    done = subprocess.run(
        [path], input=b"".join(asked), capture_output=True, check=True, timeout=120
    )
    answers = [msgspec.json.decode(line, type=Answer) for line in done.stdout.splitlines()]
    assert len(answers) == len(asked)
    return answers
