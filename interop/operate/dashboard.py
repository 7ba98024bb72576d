"""The dashboard for Grafana: it is what its builder makes of docs/metrics.md, and Grafana and Prometheus understand it."""

import json
from pathlib import Path
import re
import sys
import tempfile
import unittest

import grafana_foundation_sdk.cog.plugins as plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
import yaml

from metrics import REPOSITORY, Listed, promtool

sys.path.append(str(REPOSITORY / "deploy/grafana"))
import build  # noqa: E402

FILE = REPOSITORY / "deploy/grafana/taut.json"

# Metrics that no panel needs: others tell the same, or the alerts do.
NOT_SHOWN = {
    "taut_webhooks_waiting_bytes",
    "taut_webhooks_held_back",
    "taut_webhooks_dead_letters",
    "taut_webhooks_store_failing",
    "taut_webhooks_recorded_total",
    "taut_webhooks_store_errors_total",
    "taut_cluster_held_back",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
}


class TheDashboard(unittest.TestCase):
    def setUp(self):
        self.dashboard = json.loads(FILE.read_text())
        self.panels = [panel for panel in self.dashboard["panels"] if panel["type"] != "row"]

    def test_it_is_what_its_builder_makes(self):
        self.assertEqual(FILE.read_text(), build.dashboard(), "run deploy/grafana/build.py")

    def test_grafana_knows_all_its_fields(self):
        plugins.register_default_plugins()
        understood = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(self.dashboard)))
        self.assertEqual(list(missing(self.dashboard, understood)), [])

    def test_prometheus_parses_its_queries(self):
        rules = [{"record": f"panel:{index}", "expr": filled_in(query)} for index, query in enumerate(self.queries())]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "queries.yml"
            file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
            promtool("check", "rules", file)

    def test_its_queries_use_metrics_as_they_are(self):
        listed = Listed.of_the_page()
        for query in self.queries():
            with self.subTest(query):
                listed.check(filled_in(query))

    def test_legends_name_labels_that_the_query_leaves(self):
        for panel in self.panels:
            for target in panel["targets"]:
                kept = re.findall(r"by \(([^)]*)\)", target["expr"])
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    self.assertTrue(not kept and label == "instance" or any(label in words for words in kept), target)

    def test_every_metric_is_on_a_panel_or_left_out_on_purpose(self):
        listed = Listed.of_the_page()
        shown = {listed.base(name) for query in self.queries() for name in re.findall(r"\b(?:taut|process)_\w+", query)}
        self.assertEqual(set(listed.metrics) - shown, NOT_SHOWN)

    def test_panels_do_not_overlap_and_have_a_description(self):
        taken = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
            self.assertLessEqual(place["x"] + place["w"], 24)
        self.assertEqual(len({panel["id"] for panel in self.dashboard["panels"]}), len(self.dashboard["panels"]))
        for panel in self.panels:
            self.assertTrue(panel["description"] or "up{" in panel["targets"][0]["expr"], panel["title"])

    def test_its_variables_are_those_that_it_uses(self):
        names = {variable["name"] for variable in self.dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(self.dashboard["panels"]))) - {"__rate_interval"}
        self.assertEqual(used, names)

    def queries(self):
        return [target["expr"] for panel in self.panels for target in panel["targets"]]


def filled_in(query):
    """A query as Grafana sends it to Prometheus."""
    return re.sub(r"\$(?:job|instance|app)\b", "taut", query.replace("$__rate_interval", "1m"))


def missing(given, understood, path=""):
    """What is not in the other, or is something else there."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            yield from missing(value, understood[key], f"{path}.{key}") if key in understood else [f"{path}.{key}"]
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for index, (one, other) in enumerate(zip(given, understood)):
            yield from missing(one, other, f"{path}[{index}]")
    elif given != understood:
        yield path
