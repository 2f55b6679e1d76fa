"""The Helm chart, rendered by the real Helm and checked by Kubernetes' own schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cacheproxy import __version__
from cacheproxy.config import load
from cacheproxy.settings import Config, settings
from tests.chart.helm import RELEASE, Helm, Kubeconform, Rendered
from tests.chart.schema import CHART, SCHEMA, as_text, settings_schema
from tests.chart.watching import DASHBOARD, rules
from tests.readme import README, snippet
from tests.real.process import CommandError

_BUCKET: Final = {"storage": {"url": "s3://bucket/prefix"}}

_WEAK: Final = {"config": _BUCKET, "conditionalWrites": False}

_FLEET: Final = {"config": _BUCKET, "replicaCount": 3}

_WATCHED: Final = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "CI"}},
    }
}

_TOGETHER: Final = {"config": {"metrics": {"listen": ""}}}

_GUARDED: Final = {
    "config": {
        "storage": {"url": "s3://bucket/prefix"},
        "auth": {"htpasswd_file": "/auth/users"},
    },
}

_KEY: Final = {"name": "CACHEPROXY_AUTH__SIGNING_KEY_FILE", "value": "/auth/key"}

_BY_TLS: Final = {
    "config": {"metrics": {"listen": ""}, "server": {"tls_cert_file": "/tls/tls.pem"}},
}

_EVERYTHING: Final = {
    **_FLEET,
    **_WATCHED,
    "image": {"repository": "registry.example/cacheproxy", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "existingSecret": "s3-key",
    "extraEnv": [{"name": "CACHEPROXY_LOG__LEVEL", "value": "debug"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}},
    "tierVolume": {"hostPath": {"path": "/mnt/nvme", "type": "Directory"}},
    "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "tls": [{"secretName": "tls", "hosts": ["cache.example"]}],
    },
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"ci": "yes"}}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"monitoring": "yes"}}}],
        "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
    },
    "podAnnotations": {"a": "b"},
    "podLabels": {"azure.workload.identity/use": "true"},
    "nodeSelector": {"disk": "nvme"},
    "tolerations": [{"key": "ci", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}

_MATRIX: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "existing claim": {"persistence": {"existingClaim": "mine"}},
    "storage class": {"persistence": {"storageClass": "fast", "size": "1Ti"}},
    "weak bucket": _WEAK,
    "fleet": _FLEET,
    "autoscaled": {"config": _BUCKET, "autoscaling": {"enabled": True}},
    "identity of others": {"serviceAccount": {"create": False, "name": "theirs"}},
    "ingress": {"ingress": {"enabled": True}},
    "open network": {"networkPolicy": {"enabled": True}},
    "watched": _WATCHED,
    "watched together": {**_TOGETHER, **_WATCHED, "networkPolicy": {"enabled": True}},
    "watched by TLS": {**_BY_TLS, **_WATCHED},
    "everything": _EVERYTHING,
}

_SERVICE: Final = f"{RELEASE}-cacheproxy"
_APART: Final = f"{RELEASE}-cacheproxy-metrics"

_EACH = pytest.mark.parametrize("values", list(_MATRIX.values()), ids=list(_MATRIX))

_OTHER: Final = {
    "storage.url": "s3://bucket/prefix",
    "storage.namespaces": [{"name": "ci", "repositories": ["ci/*"]}],
    "server.listen": "0.0.0.0:8080",
    "metrics.listen": "0.0.0.0:9090",
    "s3.sse": "aws:kms",
    "s3.checksums": "off",
    "log.level": "warning",
    "cache.rules": [{"repositories": "ci/*", "sources": 1}],
    "clients.networks": {"eu": ["10.1.0.0/16"]},
    "clients.trusted_proxies": ["10.0.0.0/8"],
    "auth.groups": {"ci": ["runner1", "runner2"]},
    "auth.rules": [{"groups": ["ci"], "actions": ["pull"], "repositories": ["ci/*"]}],
    "retention.rules": [{"repositories": "pr/*", "image_tags": 5, "cache_bytes": "5GiB"}],
}
"""Values that are not the default, where not just any will do."""


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path / "helm", "helm")


@pytest.fixture(scope="session", params=["1.30.0", "1.37.0"])
def kubeconform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Kubeconform:
    """The oldest Kubernetes that the chart is for, and the newest there is."""
    return Kubeconform(tmp_path_factory.mktemp("kubernetes") / "home", request.param)


@_EACH
def test_the_chart_has_no_fault(helm: Helm, values: dict[str, Any]) -> None:
    """`helm lint --strict` finds nothing."""
    helm.lint(values)


@_EACH
def test_what_is_rendered_is_valid(
    helm: Helm, kubeconform: Kubeconform, values: dict[str, Any]
) -> None:
    """Every manifest is what Kubernetes takes, and has no field that it does not know."""
    kubeconform.check(helm.template(values).text)


@_EACH
def test_helm_3_renders_the_same(tmp_path: Path, helm: Helm, values: dict[str, Any]) -> None:
    """Both versions of Helm that are in use make the same manifests."""
    older = Helm(tmp_path / "helm3", "helm3")

    assert older.template(values).manifests == helm.template(values).manifests


def test_a_field_that_is_not_known_is_found(helm: Helm, kubeconform: Kubeconform) -> None:
    """The check would find a fault, and a kind that it knows nothing about."""
    text = helm.template({}).text

    with pytest.raises(CommandError, match="additional properties 'lifecycl' not allowed"):
        kubeconform.check(text.replace("lifecycle:", "lifecycl:"))
    with pytest.raises(CommandError, match="could not find schema for Deploymint"):
        kubeconform.check(text.replace("kind: Deployment", "kind: Deploymint"))


def test_every_setting_is_reached_by_values(helm: Helm, tmp_path: Path) -> None:
    """Each setting, given another value than its default, is in the file that the server reads."""
    tree: dict[str, dict[str, Any]] = {}
    for setting in settings():
        value = _OTHER.get(setting.key) or _other(setting.default)
        tree.setdefault(setting.section, {})[setting.name] = value
    file = tmp_path / "cacheproxy.yaml"
    file.write_text(helm.template({"config": tree}).settings)

    config = load({}, {}, str(file))

    assert config == load(_flags(tree), {})
    for setting in settings():
        assert _value(config, setting.key) != setting.default, setting.key


def test_the_defaults_are_settings_that_a_server_takes(helm: Helm, tmp_path: Path) -> None:
    """With no values the server stores on the volume, and can be reached from outside its pod."""
    file = tmp_path / "cacheproxy.yaml"
    file.write_text(helm.template({}).settings)

    config = load({}, {}, str(file))

    assert config.storage.url == "file:///data/storage"
    assert config.tier.folder == "/data/tier"
    assert config.server.listen == "0.0.0.0:5000"
    assert config.metrics.listen == "0.0.0.0:5001"


def test_the_schema_of_the_settings_is_the_one_in_the_code() -> None:
    """values.schema.json has every setting, its type and meaning; else
    `python -m tests.chart.schema` writes them."""
    schema = json.loads(SCHEMA.read_text())

    assert schema["properties"]["config"] == settings_schema()
    assert SCHEMA.read_text() == as_text(schema)


def test_the_schema_has_every_value_and_no_other() -> None:
    """What values.yaml offers is what the schema allows."""
    schema = json.loads(SCHEMA.read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert set(schema["properties"]) == {*values, "global"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"config": {"server": {"worker": 2}}}, "'worker' not allowed"),
        ({"config": {"tier": {"bytes": "10 apples"}}}, "/config/tier/bytes"),
        ({"config": {"log": {"level": "loud"}}}, "/config/log/level"),
        ({"replicas": 2}, "'replicas' not allowed"),
        ({"tierVolume": {"emptyDir": {}, "hostPath": {"path": "/x"}}}, "/tierVolume"),
        ({"ingress": {"hosts": []}}, "/ingress/hosts"),
        ({"replicaCount": 2}, "Only one server can use a folder"),
        ({**_WEAK, "replicaCount": 2}, "Only one server can use a folder"),
        ({**_WEAK, "autoscaling": {"enabled": True}}, "Only one server can use a folder"),
        ({**_GUARDED, "replicaCount": 2}, "only with config.auth.signing_key_file"),
        ({**_GUARDED, "autoscaling": {"enabled": True}}, "only with config.auth.signing_key_file"),
    ],
)
def test_values_that_cannot_work_are_refused(helm: Helm, values: dict[str, Any], told: str) -> None:
    """What would fail in the cluster, or do nothing, is told when it is installed."""
    with pytest.raises(CommandError, match=re.escape(told)):
        helm.template(values)


@pytest.mark.parametrize(
    "values",
    [
        _GUARDED,
        {**_GUARDED, "replicaCount": 2, "extraEnv": [_KEY]},
        {
            "replicaCount": 2,
            "config": {
                **_GUARDED["config"],
                "auth": {"htpasswd_file": "/auth/users", "signing_key_file": "/auth/key"},
            },
        },
    ],
    ids=["one server", "in the environment", "in the settings"],
)
def test_servers_that_share_a_key_or_have_none_to_share_it_with_are_taken(
    helm: Helm, values: dict[str, Any]
) -> None:
    """The key may come from wherever a setting comes from."""
    assert helm.template(values).one("Deployment")


@pytest.mark.parametrize("values", [{}, _WEAK], ids=["folder", "weak bucket"])
def test_storage_that_cannot_be_shared_has_one_server_at_a_time(
    helm: Helm, values: dict[str, Any]
) -> None:
    """The old server ends before the new one starts, and nothing asks for a second one."""
    rendered = helm.template(values)
    deployment = rendered.one("Deployment")["spec"]

    assert deployment["strategy"] == {"type": "Recreate"}
    assert deployment["replicas"] == 1
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & set(rendered.kinds)


def test_a_fleet_rolls_and_is_spread(helm: Helm) -> None:
    """Servers of one bucket are replaced one after the other, and are not all on one node."""
    rendered = helm.template(_FLEET)
    deployment = rendered.one("Deployment")["spec"]

    assert deployment["replicas"] == 3
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert rendered.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    for constraint in rendered.pod["topologySpreadConstraints"]:
        assert constraint["labelSelector"] == deployment["selector"]


def test_the_autoscaler_alone_says_how_many(helm: Helm) -> None:
    """Where there is an autoscaler, an upgrade of the release does not undo what it did."""
    rendered = helm.template({"config": _BUCKET, "autoscaling": {"enabled": True}})
    autoscaler = rendered.one("HorizontalPodAutoscaler")["spec"]

    assert "replicas" not in rendered.one("Deployment")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == rendered.one("Deployment")["metadata"]["name"]
    assert rendered.kinds.count("PodDisruptionBudget") == 1


def test_storage_in_a_folder_outlives_the_release(helm: Helm) -> None:
    """The claim at /data stays when the release is deleted."""
    rendered = helm.template({})
    claim = rendered.one("PersistentVolumeClaim")

    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert _volume(rendered, "/data") == {
        "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}
    }


def test_the_tier_of_a_bucket_is_on_a_disk_of_the_node(helm: Helm) -> None:
    """Where the bucket is the state, the volume at /data may vanish with its pod."""
    nvme = {"hostPath": {"path": "/mnt/nvme"}}

    assert _volume(helm.template(_FLEET), "/data") == {"emptyDir": {}}
    assert _volume(helm.template({**_FLEET, "tierVolume": nvme}), "/data") == nvme
    assert "PersistentVolumeClaim" not in helm.template(_FLEET).kinds


def test_pods_are_restricted(helm: Helm) -> None:
    """The pods may run where the restricted standard of Kubernetes is enforced."""
    rendered = helm.template({})
    pod, container = rendered.pod, rendered.container

    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_user_is_the_one_of_the_image(helm: Helm) -> None:
    """The pods run as the user whom the Dockerfile names."""
    user = re.search(r"^USER (\d+):(\d+)$", (CHART.parent.parent / "Dockerfile").read_text(), re.M)
    context = helm.template({}).pod["securityContext"]

    assert user is not None
    assert [context["runAsUser"], context["runAsGroup"]] == [int(one) for one in user.groups()]
    assert context["fsGroup"] == context["runAsGroup"]


def test_probes_ask_what_the_server_answers(helm: Helm) -> None:
    """A server whose bucket is away is left out, and not restarted. They need no TLS for that."""
    rendered = helm.template({})
    container = rendered.container
    asked = {
        probe: container[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "liveness", "readiness")
    }

    assert asked == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert _probed(rendered) == {("metrics", "HTTP")}


def test_transfers_have_time_to_end(helm: Helm) -> None:
    """Kubernetes kills a server only after it has had its own time to drain."""
    slow = {"config": {"server": {"drain_timeout": 1800.5}}}

    assert helm.template({}).pod["terminationGracePeriodSeconds"] > 300 + 10
    assert helm.template(slow).pod["terminationGracePeriodSeconds"] > 1801 + 10


def test_a_changed_setting_restarts_the_servers(helm: Helm) -> None:
    """The settings are read at start, so the pods depend on them."""
    changed = helm.template({"config": {"cache": {"sources": 1}}})
    template = changed.one("Deployment")["spec"]["template"]["metadata"]

    assert template != helm.template({}).one("Deployment")["spec"]["template"]["metadata"]


def test_another_port_is_taken_over(helm: Helm) -> None:
    """Probes, services and policies follow the ports that the server is told to listen on."""
    listen = {"server": {"listen": "0.0.0.0:8080"}, "metrics": {"listen": "0.0.0.0:9090"}}
    rendered = helm.template({"config": listen})

    assert rendered.container["ports"] == [
        {"name": "http", "containerPort": 8080},
        {"name": "metrics", "containerPort": 9090},
    ]
    assert rendered.one("Service", _SERVICE)["spec"]["ports"][0]["targetPort"] == "http"
    assert rendered.one("Service", _APART)["spec"]["ports"] == [
        {"name": "metrics", "port": 9090, "targetPort": "metrics"}
    ]


def test_metrics_that_are_guarded_can_be_scraped(helm: Helm) -> None:
    """Where they are on the port of clients, Prometheus needs credentials, and a name to expect."""
    how = {
        "basicAuth": {
            "username": {"name": "scraper", "key": "user"},
            "password": {"name": "scraper", "key": "password"},
        },
        "tlsConfig": {"serverName": "cache.example"},
    }
    values = {**_BY_TLS, "metrics": {"serviceMonitor": {"enabled": True, "endpoint": how}}}
    [endpoint] = helm.template(values).one("ServiceMonitor")["spec"]["endpoints"]

    assert endpoint.items() >= how.items()


def test_the_server_reads_the_settings_that_are_mounted(helm: Helm) -> None:
    """And writes where there is a volume: its root is read-only."""
    rendered = helm.template({})
    container, [settings] = rendered.container, rendered.one("ConfigMap")["data"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    read = {each["name"]: each["value"] for each in container["env"]}["CACHEPROXY_CONFIG"]
    volumes = {each["name"]: each for each in rendered.pod["volumes"]}

    assert read == f"{mounts['config']}/{settings}"
    assert volumes["config"]["configMap"]["name"] == rendered.one("ConfigMap")["metadata"]["name"]
    assert mounts.keys() == volumes.keys()
    assert yaml.safe_load(rendered.one("ConfigMap")["data"][settings])["storage"]["url"].startswith(
        f"file://{mounts['data']}"
    )


def test_metrics_are_not_where_clients_are(helm: Helm) -> None:
    """A service that the world reaches leads to the registry alone; Prometheus has another."""
    rendered = helm.template({**_WATCHED, "service": {"type": "LoadBalancer"}})
    clients = rendered.one("Service", _SERVICE)["spec"]
    monitor = rendered.one("ServiceMonitor")["spec"]["endpoints"]

    assert [port["name"] for port in clients["ports"]] == ["http"]
    assert rendered.one("Service", _APART)["spec"]["clusterIP"] == "None"
    assert [(one["port"], one["scheme"]) for one in monitor] == [("metrics", "http")]


@pytest.mark.parametrize(
    ("values", "scheme"), [(_TOGETHER, "http"), (_BY_TLS, "https")], ids=["plain", "TLS"]
)
def test_metrics_may_be_where_clients_are(helm: Helm, values: dict[str, Any], scheme: str) -> None:
    """Then there is one port, which is scraped and probed as it is spoken to."""
    rendered = helm.template({**values, **_WATCHED, "networkPolicy": {"enabled": True}})
    monitor = rendered.one("ServiceMonitor")["spec"]["endpoints"]

    assert [port["name"] for port in rendered.container["ports"]] == ["http"]
    assert rendered.one("Service")["metadata"]["name"] == _SERVICE
    assert [(one["port"], one["scheme"]) for one in monitor] == [("http", scheme)]
    assert _probed(rendered) == {("http", scheme.upper())}
    assert _open_ports(rendered) == {"http": None}


def test_networks_are_allowed_for_each_port(helm: Helm) -> None:
    """Who may push is not who may scrape."""
    rendered = helm.template(_EVERYTHING)

    assert _open_ports(rendered) == {
        "http": [{"namespaceSelector": {"matchLabels": {"ci": "yes"}}}],
        "metrics": [{"namespaceSelector": {"matchLabels": {"monitoring": "yes"}}}],
    }


def test_a_probe_may_be_another(helm: Helm) -> None:
    """What names a port, or is not by HTTP, is taken as it is."""
    own = {"httpGet": {"path": "/v2/", "port": "http", "scheme": "HTTPS"}, "periodSeconds": 5}
    other = {"httpGet": None, "tcpSocket": {"port": "http"}, "periodSeconds": 5}
    container = helm.template({"readinessProbe": own, "livenessProbe": other}).container

    assert container["readinessProbe"]["httpGet"] == own["httpGet"]
    assert container["livenessProbe"]["tcpSocket"] == {"port": "http"}
    assert "httpGet" not in container["livenessProbe"]


def test_credentials_come_from_a_secret_or_an_identity(helm: Helm) -> None:
    """A secret's keys are variables of the server; an identity is told to the service account."""
    rendered = helm.template(_EVERYTHING)
    account = rendered.one("ServiceAccount")["metadata"]

    assert rendered.container["envFrom"] == [{"secretRef": {"name": "s3-key"}}]
    assert account["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}
    assert rendered.pod["serviceAccountName"] == account["name"]


_NGINX: Final = "nginx.ingress.kubernetes.io"

_ANNOTATIONS: Final = {
    f"{_NGINX}/proxy-body-size": "client_max_body_size",
    f"{_NGINX}/proxy-buffering": "proxy_buffering",
    f"{_NGINX}/proxy-request-buffering": "proxy_request_buffering",
    f"{_NGINX}/proxy-connect-timeout": "proxy_connect_timeout",
    f"{_NGINX}/proxy-read-timeout": "proxy_read_timeout",
    f"{_NGINX}/proxy-send-timeout": "proxy_send_timeout",
}

_OF_THE_CONTROLLER: Final = {
    "client-body-timeout": "client_body_timeout",
    "keep-alive": "keepalive_timeout",
    "large-client-header-buffers": "large_client_header_buffers",
}
"""What no annotation sets."""


def test_the_ingress_says_what_nginx_is_told(helm: Helm) -> None:
    """The annotations for ingress-nginx have the values of README's lines for nginx."""
    ingress = helm.template({"ingress": {"enabled": True}}).one("Ingress")["metadata"]
    found = {name: value for name, value in ingress["annotations"].items() if _NGINX in name}

    assert found == {name: _told_to_nginx(directive) for name, directive in _ANNOTATIONS.items()}


def test_proxies_wait_as_long_as_the_server() -> None:
    idle = f"{Config().server.body_idle_timeout:g}"

    assert _told_to_nginx("proxy_read_timeout") == idle
    assert f"idle_timeout.timeout_seconds={idle}" in (CHART / "values.yaml").read_text()


@pytest.mark.parametrize("key", _OF_THE_CONTROLLER)
def test_the_readme_says_what_the_controller_is_told(key: str) -> None:
    """With the values of the lines for nginx."""
    assert f'`{key}: "{_told_to_nginx(_OF_THE_CONTROLLER[key])}"`' in README


def _told_to_nginx(directive: str) -> str:
    """The first value that README's lines for nginx give, in seconds if it is a time."""
    found = re.search(rf"^ +{directive} (.+?);", snippet("nginx"), re.MULTILINE)
    assert found
    time = re.fullmatch(r"(\d+)([sm])", found[1])
    return str(int(time[1]) * {"s": 1, "m": 60}[time[2]]) if time else found[1]


@pytest.mark.parametrize(
    ("values", "host", "plain"),
    [
        ({}, f"{RELEASE}-cacheproxy.default.svc:5000", True),
        (
            {"ingress": {"enabled": True, "hosts": ["cache.acme.example"]}},
            "cache.acme.example",
            True,
        ),
        (_EVERYTHING, "cache.example", False),
        (_BY_TLS, f"{RELEASE}-cacheproxy.default.svc:5000", False),
    ],
    ids=["service", "ingress", "tls at the ingress", "tls"],
)
def test_the_notes_tell_builders_what_to_say(
    helm: Helm, values: dict[str, Any], host: str, plain: bool
) -> None:
    """After an installation the line for buildx is shown, and how to speak plain HTTP if needed."""
    notes = helm.notes(values).partition("NOTES:")[2]

    assert f"--cache-to type=registry,ref={host}/ci/app:cache,mode=max" in notes
    assert f"--cache-from type=registry,ref={host}/ci/app:cache" in notes
    assert (f'[registry."{host}"]\n    http = true' in notes) is plain


@pytest.mark.parametrize("apart", [True, False])
def test_rules_are_about_the_own_release(helm: Helm, apart: bool) -> None:
    """They are the rules of the file, about the servers that the service monitor has found."""
    rendered = helm.template(_WATCHED if apart else {**_TOGETHER, **_WATCHED})
    service = _APART if apart else _SERVICE
    found = yaml.safe_dump(rendered.one("PrometheusRule")["spec"])

    assert [_named(rule) for rule in rules(found)] == [_named(rule) for rule in rules()]
    for rule in rules(found):
        selectors = re.findall(r"\{(.*?)\}", rule["expr"])
        assert selectors
        assert all(one.startswith(f'job="{service}", namespace="default"') for one in selectors)


def test_the_dashboard_is_the_one_in_the_file(helm: Helm) -> None:
    """Grafana's sidecar finds it in a ConfigMap, as it is."""
    (found,) = (
        one["data"]["cacheproxy.json"]
        for one in helm.template(_WATCHED).manifests
        if one["kind"] == "ConfigMap" and "cacheproxy.json" in one["data"]
    )

    assert json.loads(found) == json.loads(DASHBOARD.read_text())


def test_the_chart_is_of_this_version() -> None:
    """The image that the chart asks for by default is the one of this code."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == __version__


def _named(rule: dict[str, Any]) -> dict[str, Any]:
    """All of a rule that does not depend on the release."""
    return {name: value for name, value in rule.items() if name != "expr"}


def _other(default: object) -> Any:
    """A value of the same type that is not the default."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    assert isinstance(default, str)
    return f"{default}/other"


def _flags(tree: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{name}": value for section, of in tree.items() for name, value in of.items()
    }


def _value(config: Config, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _probed(rendered: Rendered) -> set[tuple[str, str]]:
    """The ports that probes ask, and how."""
    probes = (rendered.container[f"{name}Probe"] for name in ("startup", "liveness", "readiness"))
    return {(probe["httpGet"]["port"], probe["httpGet"]["scheme"]) for probe in probes}


def _open_ports(rendered: Rendered) -> dict[str, Any]:
    """The ports that others may connect to, each with who may, if that is not everybody."""
    rules = rendered.one("NetworkPolicy")["spec"]["ingress"]
    return {port["port"]: rule.get("from") for rule in rules for port in rule["ports"]}


def _volume(rendered: Rendered, path: str) -> dict[str, Any]:
    """The source of the volume that is mounted at `path`."""
    (mount,) = (one for one in rendered.container["volumeMounts"] if one["mountPath"] == path)
    (volume,) = (one for one in rendered.pod["volumes"] if one["name"] == mount["name"])
    return {key: value for key, value in volume.items() if key != "name"}
