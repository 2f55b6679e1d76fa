"""Three builders as three runners, whose builds are known: the figures are exactly those.

They build one after another, and only export caches. Each imports first and knows nothing then,
for it was pruned. Twice: the first time the runners have some steps in common and some of their
own, the second time nothing has changed.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.access.doors import PASSWORD, hashed, signing_key
from tests.chart.watching import RULES, queries, recorded
from tests.exposition import Counted, counted_in
from tests.real.base_image import BaseImage
from tests.real.build import Build
from tests.real.buildkit import BuildKit
from tests.real.clients import Crane
from tests.real.process import CommandError
from tests.real.prometheus import Prometheus, lint
from tests.real.seaweed import SeaweedFS
from tests.server import QUICK, Server

RUNNERS: Final = ("one", "two", "three")
ROUNDS: Final = 2
_RULES: Final = """[
{users: [admin, one, two, three], actions: [pull, push], repositories: ["*"]},
{users: [prometheus], actions: [metrics]}]"""

_DOCKERFILE: Final = """\
FROM {base}
COPY tools /tools
RUN cat /tools > /compiled
COPY source /source
RUN cat /source /compiled > /result
"""
_SHARED: Final = {"[2/5] COPY tools /tools", "[3/5] RUN cat /tools > /compiled"}
_OWN: Final = {"[4/5] COPY source /source", "[5/5] RUN cat /source /compiled > /result"}


@dataclass(frozen=True, slots=True)
class Export:
    """What a runner has pushed: a cache, in each round the same, or an image."""

    layers: dict[str, int]
    """Their bytes, by their digests."""
    config_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """All of it, when it is over. `base` has the bytes of the layers and the config of the image
    that all build on, which the admin has pushed."""

    builds: dict[str, list[Build]]
    exports: dict[str, Export]
    base: Export
    exposition: str
    prometheus: Prometheus

    def counted(self, name: str, *by: str, **only: str) -> Counted:
        """What a scrape shows, by these labels."""
        return counted_in(self.exposition, name, *by, **only)

    @property
    def shared(self) -> int:
        """The bytes of the layers that all runners have, that of the image among them."""
        layers = [set(each.layers) for each in self.exports.values()]
        found = set.intersection(*layers)
        assert len(found) == 1 + len(_SHARED)
        return sum(self.exports["one"].layers[digest] for digest in found)

    def all(self, runner: str) -> int:
        return sum(self.exports[runner].layers.values())


class _Stage:
    """A server in S3, whose clients are its users, three builders, and what they build."""

    def __init__(self, folder: Path, server: Server, builders: dict[str, BuildKit]) -> None:
        self._folder = folder
        self._server = server
        self._builders = builders

    def prepare(self, layout: BaseImage) -> None:
        """Push the image, and write down what each runner builds on it."""
        crane = Crane(self._folder / "crane")
        crane.home.login(self._server.host, "admin", PASSWORD)
        base = layout.push(self._server.host, crane)
        for runner, builder in self._builders.items():
            builder.home.login(self._server.host, runner, PASSWORD)
            project = self._folder / runner
            project.mkdir()
            (project / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
            (project / "tools").write_text("tools")
            (project / "source").write_text(runner)

    def build(self, runner: str) -> Build:
        """Import, build and export, on a builder that knows nothing."""
        builder, ref = self._builders[runner], f"ref={self._server.host}/ci/app:cache"
        builder.prune()
        options = (f"--import-cache=type=registry,{ref}", f"--export-cache=type=registry,{ref}")
        return builder.build(self._folder / runner, options[0], f"{options[1]},mode=max")

    def exposition(self) -> tuple[str, int]:
        """What a scrape shows when it shows all requests, and how many those are. What a worker has
        not told yet, it has logged."""
        daemon = self._server.daemon

        def look() -> tuple[str, int] | None:
            logged = daemon.log.count('"event":"request"')
            text = self.get("/metrics", "prometheus")
            shown = counted_in(text, "cacheproxy_http_requests_total")[()]
            return (text, logged) if shown == logged else None

        return daemon.wait_for(look)

    def exported(self, user: str, repository: str) -> Export:
        """What the manifests say that the user has pushed, as the lines for audits tell."""
        text = self._server.daemon.log.splitlines()
        lines = [json.loads(line) for line in text if line.startswith("{")]
        pushed = [
            line["digest"]
            for line in lines
            if line["event"] == "audit" and line["endpoint"] == "end-7" and line["user"] == user
        ]
        first, *again = [self._manifest(repository, digest) for digest in pushed]
        assert all(other == first for other in again)
        return first

    def _manifest(self, repository: str, digest: str) -> Export:
        manifest = json.loads(self.get(f"/v2/{repository}/manifests/{digest}", "admin"))
        layers = {layer["digest"]: layer["size"] for layer in manifest["layers"]}
        return Export(layers, manifest["config"]["size"])

    def get(self, path: str, user: str) -> str:
        secret = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}"}
        request = urllib.request.Request(f"http://{self._server.host}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def run(
    request: pytest.FixtureRequest,
    seaweed: SeaweedFS,
    layout: BaseImage,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """The same builds, counted by one process, and by two together."""
    folder = tmp_path_factory.mktemp("runners")
    users = folder / "users"
    users.write_text(
        "".join(f"{user}:{hashed(PASSWORD, 8)}\n" for user in ("admin", "prometheus", *RUNNERS))
    )
    flags = (
        f"--workers={request.param}",
        f"--auth-htpasswd-file={users}",
        f"--auth-rules={_RULES}",
        f"--auth-signing-key-file={signing_key(folder / 'key')}",
    )
    with ExitStack() as stack:
        prefix = seaweed.fresh_prefix()
        server = stack.enter_context(
            Server.on_s3(folder / "server", seaweed, prefix, *flags, command=QUICK)
        )
        builders = {runner: stack.enter_context(BuildKit.running()) for runner in RUNNERS}
        stage = _Stage(folder, server, builders)
        prometheus = stack.enter_context(
            Prometheus.running(
                folder, server.host, user="prometheus", password=PASSWORD, rules=RULES
            )
        )
        prometheus.wait_until("up == 1")
        stage.prepare(layout)
        builds: dict[str, list[Build]] = {runner: [] for runner in RUNNERS}
        for _ in range(ROUNDS):
            for runner in RUNNERS:
                builds[runner].append(stage.build(runner))
        exposition, requests = stage.exposition()
        prometheus.wait_until(f"sum(cacheproxy_http_requests_total) == {requests}")
        last = 'cacheproxy_cache_exports_total{client="three",result="unchanged"}'
        prometheus.wait_until(f"sum_over_time({last}[1m]) >= 3")  # seen so often, for rates
        exports = {runner: stage.exported(runner, "ci/app") for runner in RUNNERS}
        yield Run(builds, exports, stage.exported("admin", "base/busybox"), exposition, prometheus)


def test_the_steps_are_cached_that_should_be(run: Run) -> None:
    """So it is known what the figures have to be."""
    for runner in RUNNERS:
        first, again = run.builds[runner]
        known = set() if runner == "one" else _SHARED
        assert set(first.cached) == known
        assert set(first.executed) == (_SHARED | _OWN) - known
        assert again.executed == []
        assert len(run.exports[runner].layers) == 1 + len(_SHARED) + len(_OWN)


def test_imports_are_found_but_for_the_very_first(run: Run) -> None:
    """When `one` asks for the first time, nobody has exported yet."""
    counted = run.counted("cacheproxy_cache_imports_total", "client", "result")
    del counted[("admin", "not_found")]  # crane looks for the tag of the image before it pushes

    assert counted == {
        ("one", "not_found"): 1,
        ("one", "found"): 1,
        ("two", "found"): 2,
        ("three", "found"): 2,
    }


def test_exports_are_stored_once_and_unchanged_then(run: Run) -> None:
    """The tag leads to a union, so that BuildKit pushes also what is no news."""
    counted = run.counted("cacheproxy_cache_exports_total", "client", "result")

    assert counted == {
        (runner, result): 1 for runner in RUNNERS for result in ("stored", "unchanged")
    }


def test_what_is_there_needs_no_upload(run: Run) -> None:
    """For `one` the layer of the image, for the others those of the common steps too; the second
    time all layers and the config."""
    blobs = run.counted("cacheproxy_client_avoided_uploads_total", "client")
    bytes_ = run.counted("cacheproxy_client_avoided_upload_bytes_total", "client")
    everything = 1 + len(_SHARED) + len(_OWN) + 1
    first = {"one": (1, sum(run.base.layers.values()))}
    others = (1 + len(_SHARED), run.shared)

    for runner in RUNNERS:
        number, size = first.get(runner, others)
        again = run.all(runner) + run.exports[runner].config_bytes
        assert blobs[(runner,)] == number + everything
        assert bytes_[(runner,)] == size + again
    assert len(blobs) == len(bytes_) == len(RUNNERS)


def test_what_is_not_there_is_uploaded_once(run: Run) -> None:
    """The image and its config, each layer, and the config of each export."""
    exports = run.exports.values()
    layers = {digest: size for each in exports for digest, size in each.layers.items()}
    configs = [run.base.config_bytes, *[each.config_bytes for each in exports]]

    number = run.counted("cacheproxy_blob_uploads_total", "result")
    assert number == {("stored",): len(layers) + len(configs)}
    assert len(layers) == 1 + len(_SHARED) + len(RUNNERS) * len(_OWN)
    assert run.counted("cacheproxy_blob_upload_bytes_total", "result") == {
        ("stored",): sum(layers.values()) + sum(configs)
    }


def test_hits_across_runners_are_those_on_the_work_of_others(run: Run) -> None:
    """The image is the admin's: its manifest and config are fetched by each build, its layer by the
    first of a runner. The common steps are the work of `one`: the others fetch their layers once,
    and need never push them. All have a part in the cache but in the very first one. The config of
    a union is nobody's work, and only `two` has had a cache of which there was one source."""
    counted = run.counted("cacheproxy_cross_client_hits_total", "client", "kind")
    others_layers = 1 + len(_SHARED)

    assert counted == {
        **{(runner, "manifest"): ROUNDS for runner in RUNNERS},
        ("one", "config"): ROUNDS,
        ("two", "config"): ROUNDS + 1,
        ("three", "config"): ROUNDS,
        ("one", "cache_manifest"): ROUNDS - 1,
        ("two", "cache_manifest"): ROUNDS,
        ("three", "cache_manifest"): ROUNDS,
        ("one", "blob"): 1 + ROUNDS,
        ("two", "blob"): others_layers * (1 + ROUNDS),
        ("three", "blob"): others_layers * (1 + ROUNDS),
    }


def test_looks_are_those_that_buildkit_has_to_take(run: Run) -> None:
    """By what was looked for, by HEAD or GET, and with what success."""
    name = "cacheproxy_cache_requests_total"
    looks = run.counted(name, "kind", "op", "result")
    missed = {(kind, op): n for (kind, op, result), n in looks.items() if result == "miss"}
    found: Counted = {}
    for (kind, op, result), number in looks.items():
        if result != "miss":
            found[(kind, op)] = found.get((kind, op), 0) + number
    builds, imports = len(RUNNERS) * ROUNDS, len(RUNNERS) * ROUNDS - 1
    layers, others_layers = 1 + len(_SHARED) + len(_OWN), 1 + len(_SHARED)
    of_crane = 2  # the layer and the config of the image, whose type it does not tell

    assert missed == {
        ("manifest", "head"): 1 + 2,  # of crane; the tag, when `one` imports and when it exports
        ("config", "head"): len(RUNNERS),
        ("blob", "head"): of_crane + len(_SHARED) + len(RUNNERS) * len(_OWN),
    }
    assert found == {
        ("manifest", "head"): builds,
        ("manifest", "get"): builds,
        ("cache_manifest", "head"): imports + builds - 1,  # before pushes too
        ("cache_manifest", "get"): imports,
        ("config", "get"): builds + imports,
        ("config", "head"): len(RUNNERS),
        ("blob", "get"): 1 + 2 * others_layers,  # on which the steps are executed that are new
        ("blob", "head"): 1 + 2 * others_layers + len(RUNNERS) * layers,
    }


def test_the_bytes_of_layers_are_those_that_steps_were_executed_on(run: Run) -> None:
    """The second time none is fetched."""
    sent = run.counted("cacheproxy_client_cache_bytes_total", "client", kind="blob")

    assert sent == {
        ("one",): sum(run.base.layers.values()),
        ("two",): run.shared,
        ("three",): run.shared,
    }


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("cacheproxy_cache_imports_total", ("client", "result")),
        ("cacheproxy_cache_exports_total", ("client", "result")),
        ("cacheproxy_client_avoided_upload_bytes_total", ("client",)),
        ("cacheproxy_cross_client_hits_total", ("client", "kind")),
    ],
)
def test_prometheus_has_the_same_figures(run: Run, name: str, by: tuple[str, ...]) -> None:
    """Whichever process it has asked. The admin has looked at the manifests since."""
    shown = run.prometheus.shows(f'sum by ({", ".join(by)}) ({name}{{client!="admin"}}) > 0', *by)

    counted = run.counted(name, *by)
    assert shown == {labels: n for labels, n in counted.items() if labels[0] != "admin"}


def test_prometheus_finds_no_fault(run: Run) -> None:
    """With names, types, units and help; it would find one."""
    lint(run.exposition)
    with pytest.raises(CommandError, match="should not have"):
        lint(run.exposition.replace("cacheproxy_tier_objects", "cacheproxy_tier_objects_total"))


def test_every_panel_has_data(run: Run) -> None:
    """Grafana's questions, as it asks them about all clients."""
    asked = [(each.panel, each.asked(window="10s", span="1m")) for each in queries()]

    assert [each for each in asked if not run.prometheus.has_shown(each[1])] == []


@pytest.mark.parametrize("series", recorded())
def test_every_rule_records_something(run: Run, series: str) -> None:
    """As Prometheus evaluates it."""
    run.prometheus.wait_until(series)


def test_no_alert_fires(run: Run) -> None:
    """All is well."""
    assert run.prometheus.shows('ALERTS{alertstate="firing"}', "alertname") == {}
