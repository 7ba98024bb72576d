"""The Helm chart: Helm itself lints and renders it, Kubernetes' schemas take what comes out, and Taut takes its configuration."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest

from helm_python import Chart, lint, package, parse_set_string_values
from helm_python.errors import HelmError
import kubernetes_validate
import yaml

from metrics import REPOSITORY, Listed

sys.path.append(str(REPOSITORY / "deploy/helm"))
import generate  # noqa: E402

FOLDER = REPOSITORY / "deploy/helm/taut"
PAGE = REPOSITORY / "docs/kubernetes.md"
TAUT = os.environ["TAUT_BIN"]

# The oldest that Chart.yaml allows, and the newest that there are schemas for.
VERSIONS = ["1.25", "1.37"]

# Kinds that are not Kubernetes' own, which it has no schemas for.
FOREIGN = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}

APP = {"id": "1", "key": "shop-key", "secret": "the-secret-of-the-shop"}
REDIS = {"url": "redis://:the-password-of-redis@redis:6379"}
VARIATIONS = {
    "with an app": {"apps": [APP]},
    "with settings alone": {
        "config": {"ping-interval": 20, "max-message": "32KiB", "limits": {"channels": 1000000}},
        "metrics": {"serviceMonitor": {"enabled": True}},
        "networkPolicy": {"enabled": True},
        "extraEnv": [{"name": "TAUT_APPS", "value": "1:key:secret"}],
    },
    "with an app that has more": {
        "config": {"log-format": "json"},
        "apps": [
            APP
            | {
                "limits": {"connections": 20000000},
                "subscription-count": True,
                "webhooks": [{"url": "https://shop.example/hooks", "events": ["cache_miss"]}],
                "origins": ["https://*.shop.example"],
            }
        ],
    },
    "with settings that are secrets": {
        "config": {"metrics-token": "the-secret-of-the-metrics", "console-password": "the-password-of-the-console"},
        "extraEnv": [{"name": "TAUT_APPS", "value": "1:key:secret"}],
        "metrics": {"serviceMonitor": {"enabled": True, "authorization": {"credentials": {"name": "token", "key": "token"}}}},
    },
    "with a Secret that exists": {"existingSecret": "mine", "existingSecretKey": "server.toml"},
    "as a cluster": {"apps": [APP], "replicaCount": 3, "cluster": REDIS, "drain": {"notice": 15, "timeout": 60}},
    "as a cluster with a Secret that exists": {
        "apps": [APP],
        "replicaCount": 2,
        "cluster": {"existingSecret": "engine", "existingSecretKey": "uri", "prefix": "shop"},
    },
    "with autoscaling": {"apps": [APP], "cluster": REDIS, "autoscaling": {"enabled": True, "targetConnections": 20000}},
    "with a disk": {"apps": [APP], "persistence": {"enabled": True, "storageClass": "fast"}},
    "with everything": {
        "fullnameOverride": "realtime",
        "image": {"repository": "registry.example/taut", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "apps": [APP],
        "restartOnChange": True,
        "extraEnvFrom": [{"secretRef": {"name": "more", "optional": True}}],
        "trustedProxies": ["10.244.0.0/16", "fd00::/8"],
        "tls": {"secretName": "certificate"},
        "service": {
            "type": "LoadBalancer",
            "nodePort": 30000,
            "externalTrafficPolicy": "Local",
            "annotations": {"a": "b"},
            "sessionAffinity": "ClientIP",
            "ipFamilyPolicy": "PreferDualStack",
            "loadBalancerClass": "example.com/internal",
            "loadBalancerSourceRanges": ["203.0.113.0/24"],
        },
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["realtime.example.com"],
            "tls": [{"secretName": "c", "hosts": ["realtime.example.com"]}],
            "annotations": {"a": "b"},
        },
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["realtime.example.com"]},
        "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}], "metricsFrom": [{"namespaceSelector": {}}]},
        "metrics": {
            "port": 9700,
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True},
            "grafanaDashboard": {"enabled": True},
        },
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "shop"},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "high",
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": '{{ include "taut.fullname" . }}-more'}}],
    },
}

SECRETS_OF_OTHERS = ["mine", "engine", "certificate", "taut-toml", "taut-engine"]

MISTAKES = {
    "several pods without a cluster": ({"replicaCount": 2}, "Several pods are one server only with cluster.url"),
    "an autoscaler without a cluster": ({"autoscaling": {"enabled": True}}, "Several pods are one server only with cluster.url"),
    "a Secret beside apps": ({"existingSecret": "mine", "apps": [APP]}, "config and apps would not be used"),
    "an Ingress without a host": ({"ingress": {"enabled": True}}, "ingress.hosts is empty"),
    "a route without a gateway": ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
    "a setting that the chart has itself": ({"config": {"drain_notice": 3}}, "config.drain-notice: set the chart's own value instead"),
    "apps among the settings": ({"config": {"apps": [APP]}}, "config.apps: set the chart's own value instead"),
    "a token that Prometheus does not have": (
        {"config": {"metrics_token": "a-token"}, "metrics": {"serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor.authorization",
    ),
    "an autoscaler that looks at nothing": ({"cluster": REDIS, "autoscaling": {"enabled": True, "targetCPU": None}}, "nothing to look at"),
    "a misspelled value": ({"replicas": 2}, "replicas"),
    "a value of another type": ({"drain": {"notice": "5s"}}, "notice"),
    "an id that is a number": ({"apps": [{"id": 1}]}, "id"),
    "a service type that is none": ({"service": {"type": "Cluster"}}, "type"),
}


class TheChart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.chart = Chart.load(FOLDER)
        cls.rendered = [(name, values, render(cls.chart, values)) for name, values in {**VARIATIONS, **values_of_the_page()}.items()]

    @classmethod
    def tearDownClass(cls):
        cls.chart.close()

    def each(self):
        """Each variation, those of the page too: its name, its values, and its objects."""
        self.assertGreater(len(self.rendered), len(VARIATIONS))
        return self.rendered

    def test_helm_has_nothing_against_it(self):
        for name, values in {"as it is": {}, **VARIATIONS}.items():
            with self.subTest(name):
                report = lint(FOLDER, values, strict=True)
                self.assertEqual([message for message in report["messages"] if message["severity"] > 1], [])
                self.assertEqual(report["errors"], [])

    def test_kubernetes_knows_all_that_comes_out(self):
        seen = set()
        for variation, _, objects in self.each():
            with self.subTest(variation):
                for one in objects:
                    self.assertTrue(one["metadata"]["name"])
                    # Most variations share most objects.
                    if one["kind"] not in FOREIGN and json.dumps(one) not in seen:
                        seen.add(json.dumps(one))
                        for version in VERSIONS:
                            kubernetes_validate.validate(one, version, strict=True)

    def test_taut_takes_the_configuration(self):
        for variation, values, objects in self.each():
            with self.subTest(variation):
                if not values.get("existingSecret"):
                    checks(objects)

    def test_a_whole_number_stays_one(self):
        objects = render(self.chart, VARIATIONS["with an app that has more"])
        self.assertIn("limits = { connections = 20000000 }\n", file_of(objects))

    def test_secrets_are_in_secrets_alone(self):
        for variation, _, objects in self.each():
            with self.subTest(variation):
                for one in objects:
                    if one["kind"] != "Secret":
                        self.assertNotRegex(json.dumps(one), "the-(?:secret|password)-of")

    def test_pods_have_time_to_drain_and_no_rights(self):
        for variation, values, objects in self.each():
            with self.subTest(variation):
                pod = pods(objects)["spec"]["template"]["spec"]
                container = pod["containers"][0]
                drain = {"notice": 5, "timeout": 20, "margin": 10} | values.get("drain", {})
                self.assertEqual(pod["terminationGracePeriodSeconds"], sum(drain.values()))
                environment = {one["name"]: one.get("value") for one in container["env"]}
                self.assertEqual((environment["TAUT_DRAIN_NOTICE"], environment["TAUT_DRAIN_TIMEOUT"]), (str(drain["notice"]), str(drain["timeout"])))
                self.assertEqual(
                    [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")], ["/up", "/up", "/ready"]
                )
                # The proxies have to notice within the notice.
                probe = container["readinessProbe"]
                self.assertLess(probe["periodSeconds"] * probe["failureThreshold"], drain["notice"])
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertFalse(pod["automountServiceAccountToken"])
                self.assertEqual(
                    container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
                )

    def test_the_margin_is_what_the_last_steps_take(self):
        margin = yaml.safe_load((FOLDER / "values.yaml").read_text())["drain"]["margin"]
        source = (REPOSITORY / "crates/taut-cli/src/serve.rs").read_text()
        self.assertEqual(margin, int(re.search(r"LAST_STEPS: Duration = Duration::from_secs\((\d+)\)", source)[1]))

    def test_pods_run_side_by_side_only_as_a_cluster(self):
        seen = set()
        for variation, values, objects in self.each():
            with self.subTest(variation):
                workload = pods(objects)
                if workload["kind"] == "Deployment":
                    is_cluster = bool(values.get("cluster"))
                    seen.add(is_cluster)
                    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
                    self.assertEqual(workload["spec"]["strategy"], rolling if is_cluster else {"type": "Recreate"})
        self.assertEqual(seen, {True, False})

    def test_everything_finds_what_it_names(self):
        for variation, values, objects in self.each():
            with self.subTest(variation):
                workload = pods(objects)
                template = workload["spec"]["template"]
                labels, ports = template["metadata"]["labels"], {port["name"] for port in template["spec"]["containers"][0]["ports"]}
                names = {(one["kind"], one["metadata"]["name"]) for one in objects} | {("Secret", name) for name in SECRETS_OF_OTHERS}
                for selector in selectors(objects):
                    self.assertLessEqual(selector.items(), labels.items())
                for service in of_kind(objects, "Service"):
                    self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, ports)
                for volume in template["spec"]["volumes"]:
                    for kind, key, field in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
                        if key in volume:
                            self.assertIn((kind, volume[key][field]), names)
                for name in re.findall(r'"secretKeyRef": {"name": "([^"]+)"', json.dumps(workload)):
                    self.assertIn(("Secret", name), names)
                for service in re.findall(r'"service": {"name": "([^"]+)"', json.dumps(objects)) + re.findall(
                    r'"backendRefs": \[{"name": "([^"]+)"', json.dumps(objects)
                ):
                    self.assertIn(("Service", service), names)
                for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
                    target = scaler["spec"]["scaleTargetRef"]
                    self.assertEqual((target["kind"], target["name"]), (workload["kind"], workload["metadata"]["name"]))
                    self.assertNotIn("replicas", workload["spec"])
                for monitor in of_kind(objects, "ServiceMonitor"):
                    wanted = monitor["spec"]["selector"]["matchLabels"].items()
                    found = [service for service in of_kind(objects, "Service") if wanted <= service["metadata"]["labels"].items()]
                    self.assertEqual([service["spec"]["ports"][0]["name"] for service in found], ["metrics"])

    def test_mistakes_are_named(self):
        for name, (values, message) in MISTAKES.items():
            with self.subTest(name), self.assertRaisesRegex(HelmError, message):
                self.chart.validate_schema(values)
                render(self.chart, values)

    def test_a_change_of_a_setting_restarts_pods_only_where_it_is_wanted(self):
        for restarts in (False, True):
            templates = [
                pods(render(self.chart, {"apps": [APP], "config": {"ping-interval": seconds}, "restartOnChange": restarts}))["spec"]["template"]
                for seconds in (20, 21)
            ]
            self.assertEqual(templates[0] != templates[1], restarts)

    def test_a_change_of_the_engine_replaces_all_pods(self):
        urls = [REDIS["url"], "redis://:the-password-of-redis@other:6379"]
        templates = [pods(render(self.chart, {"apps": [APP], "cluster": {"url": url}}))["spec"]["template"] for url in urls]
        self.assertNotEqual(*templates)

    def test_a_database_with_apps_is_a_secret_too(self):
        for name in ("apps-database", "apps_database"):
            objects = render(self.chart, {"config": {name: "mysql://taut:the-password-of-mysql@mysql/apps"}})
            self.assertEqual([one["kind"] for one in objects if "the-password-of-mysql" in json.dumps(one)], ["Secret"])

    def test_the_command_of_its_notes_gives_it_an_app(self):
        (words,) = re.findall(r"--set-string '(.*)'", notes(self.chart, {}))
        values = parse_set_string_values(words)
        self.chart.validate_schema(values)
        checks(render(self.chart, values))
        self.assertNotIn("There is no app yet", notes(self.chart, values))

    def test_its_notes_tell_how_to_try_it_and_what_is_missing(self):
        for values, word in [
            ({"tls": {"secretName": "certificate"}}, "curl --insecure https://127.0.0.1:6001/up"),
            ({}, "curl http://127.0.0.1:6001/up"),
            ({"ingress": {"enabled": True, "hosts": ["realtime.example.com"]}}, "set trustedProxies"),
            ({"networkPolicy": {"enabled": True}, "metrics": {"serviceMonitor": {"enabled": True}}}, "set networkPolicy.metricsFrom"),
        ]:
            self.assertIn(word, notes(self.chart, values))

    def test_names_leave_room_for_what_kubernetes_appends(self):
        for values in ({"fullnameOverride": "a" * 63}, {"nameOverride": "a" * 63}):
            names = [one["metadata"]["name"] for one in render(self.chart, values | {"persistence": {"enabled": True}, "metrics": {"grafanaDashboard": {"enabled": True}}})]
            self.assertLessEqual(max(map(len, names)), 63)
            # A StatefulSet's pods have a label of its name and a hash, `-` and ten characters.
            self.assertLessEqual(len(pods(render(self.chart, values | {"persistence": {"enabled": True}}))["metadata"]["name"]), 52)

    def test_its_package_has_the_alerts_and_the_dashboard(self):
        with tempfile.TemporaryDirectory() as folder, Chart.load(package(FOLDER, destination=folder)) as packed:
            objects = render(packed, VARIATIONS["with everything"])
        (rule,) = of_kind(objects, "PrometheusRule")
        (monitor,) = of_kind(objects, "ServiceMonitor")
        (job,) = [one["replacement"] for one in monitor["spec"]["endpoints"][0]["relabelings"] if one["targetLabel"] == "job"]
        alerts = (REPOSITORY / "deploy/prometheus/alerts.yml").read_text()
        self.assertEqual(rule["spec"], yaml.safe_load(alerts.replace('job="taut"', f'job="{job}"')))
        texts = [one["data"]["taut.json"] for one in of_kind(objects, "ConfigMap") if "taut.json" in one.get("data", {})]
        self.assertEqual([json.loads(text) for text in texts], [json.loads((REPOSITORY / "deploy/grafana/taut.json").read_text())])

    def test_its_readme_and_its_schema_are_those_of_its_values(self):
        for name, text in generate.generate().items():
            self.assertEqual((FOLDER / name).read_text(), text, f"{name}: run deploy/helm/generate.py")

    def test_the_page_names_metrics_and_values_that_there_are(self):
        page = PAGE.read_text()
        self.assertEqual(page.count("```yaml\n"), len(values_of_the_page()) + 1)
        for name in re.findall(r"\b(?:taut|process)_\w+", page):
            self.assertTrue(Listed.of_the_page().has(name), name)
        rows = re.findall(r"^\| `(\S+)`", (FOLDER / "README.md").read_text(), re.M)
        for name in re.findall(r"`((?:drain|service|metrics|persistence|httpRoute|tls|autoscaling|cluster)\.\w+(?:\.\w+)*)`", page):
            self.assertIn(name, rows)

    def test_its_version_is_that_of_the_program(self):
        cargo = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())
        self.assertEqual(self.chart.metadata["appVersion"], cargo["workspace"]["package"]["version"])


def notes(chart, values):
    """What Helm prints after an installation."""
    return chart.render(values, name="demo", namespace="web")["taut/templates/NOTES.txt"]


def render(chart, values):
    """The objects that Helm makes of these values."""
    rendered = chart.render(values, name="demo", namespace="web")
    return [one for name, text in rendered.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one]


def values_of_the_page():
    """The values that docs/kubernetes.md shows."""
    blocks = re.findall(r"^```yaml\n# values\.yaml\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return {f"as block {index} of the page has it": yaml.safe_load(block) for index, block in enumerate(blocks, 1)}


def of_kind(objects, *kinds):
    return [one for one in objects if one["kind"] in kinds]


def pods(objects):
    (found,) = of_kind(objects, "Deployment", "StatefulSet")
    return found


def selectors(objects):
    """Everything that selects pods."""
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            yield spec["selector"]
        elif one["kind"] in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
            yield spec["selector"]["matchLabels"]
        elif one["kind"] == "NetworkPolicy":
            yield spec["podSelector"]["matchLabels"]


def file_of(objects):
    """taut.toml, wherever it is."""
    (found,) = [
        text
        for one in of_kind(objects, "ConfigMap", "Secret")
        for name, text in {**one.get("data", {}), **one.get("stringData", {})}.items()
        if name == "taut.toml"
    ]
    return found


def checks(objects):
    """`taut serve --check` with the file and the variables of a pod; addresses and folders are this machine's."""
    secrets = {one["metadata"]["name"]: one["stringData"] for one in of_kind(objects, "Secret")}
    environment = {}
    for one in pods(objects)["spec"]["template"]["spec"]["containers"][0]["env"]:
        reference = one.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            environment[one["name"]] = secrets.get(reference["name"], {reference["key"]: "redis://redis"})[reference["key"]]
        else:
            environment[one["name"]] = one.get("value", "demo-0")
    for name in ("TAUT_LISTEN", "TAUT_METRICS_LISTEN"):
        environment[name] = re.sub(r"^0\.0\.0\.0:\d+$", "127.0.0.1:0", environment[name])
    with tempfile.TemporaryDirectory() as folder:
        if "TAUT_DATA_DIRECTORY" in environment:
            environment["TAUT_DATA_DIRECTORY"] = folder
        for name in ("TAUT_TLS_CERTIFICATE", "TAUT_TLS_KEY"):
            environment.pop(name, None)
        file = Path(folder) / "taut.toml"
        file.write_text(file_of(objects))
        ran = subprocess.run([TAUT, "serve", "--check", "--config", file], env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise AssertionError(ran.stdout + ran.stderr)
