"""The alerts of deploy/prometheus: each fires for what it is about, by Prometheus' own tool, and docs/alerts.md says what to do."""

from pathlib import Path
import re
import tempfile
import unittest

import yaml

from metrics import REPOSITORY, Listed, promtool

RULES = REPOSITORY / "deploy/prometheus/alerts.yml"
NODE = 'job="taut", instance="a"'
HEALTHY = [f"up{{{NODE}}} 1x25"]

# For each alert, series that make it fire, and similar ones that do not; a sample each minute, 25 of them.
CASES = {
    "TautDown": ([f"up{{{NODE}}} 0x25"], HEALTHY),
    "TautRestarting": ([f"process_start_time_seconds{{{NODE}}} 0+60x25"], [f"process_start_time_seconds{{{NODE}}} 60x25"]),
    "TautNotReady": (
        [f'taut_http_requests_total{{{NODE}, route="/ready", status="503"}} 0+12x25'],
        [f'taut_http_requests_total{{{NODE}, route="/ready", status="200"}} 0+12x25'],
    ),
    "TautDescriptorsNearLimit": (
        [f"process_open_fds{{{NODE}}} 900x25", f"process_max_fds{{{NODE}}} 1000x25"],
        [f"process_open_fds{{{NODE}}} 800x25", f"process_max_fds{{{NODE}}} 1000x25"],
    ),
    # The tests begin in 1970.
    "TautCertificateEnds": (
        [f"taut_tls_certificate_expiry_timestamp_seconds{{{NODE}}} {9 * 86400}x25"],
        [f"taut_tls_certificate_expiry_timestamp_seconds{{{NODE}}} {11 * 86400}x25"],
    ),
    "TautConnectionsRefused": (
        [f'taut_refusals_total{{{NODE}, what="connection", reason="origin"}} 0+120x25', f"taut_connections_opened_total{{{NODE}}} 0+300x25"],
        [f'taut_refusals_total{{{NODE}, what="connection", reason="origin"}} 0+120x25', f"taut_connections_opened_total{{{NODE}}} 0+3000x25"],
    ),
    "TautRequestsRefused": (
        [f'taut_refusals_total{{{NODE}, app="1", what="request", reason="signature"}} 0+60x25'],
        [f'taut_refusals_total{{{NODE}, app="1", what="request", reason="signature"}} 0+1x25'],
    ),
    "TautErrors": (
        [f'taut_http_requests_total{{{NODE}, route="/apps/ID/events", status="{status}"}} 0+{count}x25' for status, count in (("503", 100), ("200", 900))],
        [f'taut_http_requests_total{{{NODE}, route="/apps/ID/events", status="{status}"}} 0+{count}x25' for status, count in (("503", 10), ("200", 900))],
    ),
    "TautSlowClients": (
        [f"taut_connections_kicked_total{{{NODE}}} 0+10x25", f'taut_connections{{{NODE}, app="1", transport="ws"}} 1000x25'],
        [f"taut_connections_kicked_total{{{NODE}}} 0+10x25", f'taut_connections{{{NODE}, app="1", transport="ws"}} 10000x25'],
    ),
    "TautOverloaded": ([f"taut_connections_overloaded_total{{{NODE}}} 0+1x25"], [f"taut_connections_overloaded_total{{{NODE}}} 7x25"]),
    "TautDeliverySlow": (
        [f'taut_delivery_duration_seconds_bucket{{{NODE}, le="{le}"}} 0+{count}x25' for le, count in (("0.001", 10), ("1.048576", 600), ("+Inf", 600))],
        [f'taut_delivery_duration_seconds_bucket{{{NODE}, le="{le}"}} 0+{count}x25' for le, count in (("0.001", 600), ("1.048576", 600), ("+Inf", 600))],
    ),
    "TautWebhooksLate": ([f"taut_webhooks_oldest_seconds{{{NODE}}} 200x25"], [f"taut_webhooks_oldest_seconds{{{NODE}}} 20x25"]),
    "TautWebhooksLost": (
        [f"taut_webhooks_dead_total{{{NODE}}} 0+1x25"],
        [f"taut_webhooks_dead_total{{{NODE}}} 4x25", f"taut_webhooks_failed_total{{{NODE}}} 0+1x25"],
    ),
    "TautWebhooksNotStored": ([f"taut_webhooks_store_failing{{{NODE}}} 1x25"], [f"taut_webhooks_store_failing{{{NODE}}} 0x25"]),
    "TautRouteBreakerOpen": (
        [f'taut_route_breaker_open{{{NODE}, route="/chat"}} 1x25', f'taut_route_events_total{{{NODE}, route="/chat", result="answered"}} 0+1x25'],
        # Its clients have left: nothing closes the breaker, and nothing needs to.
        [f'taut_route_breaker_open{{{NODE}, route="/chat"}} 1x25', f'taut_route_events_total{{{NODE}, route="/chat", result="busy"}} 30x25'],
    ),
    "TautRouteFailing": (
        [f'taut_route_events_total{{{NODE}, route="/chat", result="{result}"}} 0+{count}x25' for result, count in (("late", 10), ("answered", 90))],
        [
            f'taut_route_events_total{{{NODE}, route="/chat", result="{result}"}} 0+{count}x25'
            for result, count in (("refused", 10), ("late", 1), ("answered", 90))
        ],
    ),
    "TautClusterAway": (
        [f'taut_cluster_state{{{NODE}, state="joined"}} 0x25', f'taut_cluster_state{{{NODE}, state="away"}} 1x25'],
        [f'taut_cluster_state{{{NODE}, state="joined"}} 1x25', f'taut_cluster_state{{{NODE}, state="away"}} 0x25'],
    ),
    "TautClusterSlow": ([f"taut_cluster_lag_seconds{{{NODE}}} 3x25"], [f"taut_cluster_lag_seconds{{{NODE}}} 0.01x25"]),
    "TautClusterIncomplete": (
        [f"taut_cluster_nodes{{{NODE}}} 1x25", 'up{job="taut", instance="b"} 1x25'],
        [f"taut_cluster_nodes{{{NODE}}} 2x25", 'up{job="taut", instance="b"} 1x25'],
    ),
}

# What else makes an alert fire.
ALSO_FIRING = {
    # There is no target.
    "TautDown": [f"up{{{NODE}}} _x25"],
    "TautErrors": [
        f'taut_http_requests_total{{{NODE}, route="/console/api/overview", status="{status}"}} 0+{count}x25' for status, count in (("502", 50), ("504", 50), ("200", 900))
    ],
    "TautWebhooksLost": [f"taut_webhooks_dropped_total{{{NODE}}} 0+1x25"],
}


class Alerts(unittest.TestCase):
    def test_prometheus_takes_the_rules(self):
        promtool("check", "rules", RULES)

    def test_each_alert_fires_for_what_it_is_about_and_for_nothing_else(self):
        self.assertEqual(sorted(CASES), sorted(rule["alert"] for rule in rules()))
        tests = []
        for alert, (firing, quiet) in CASES.items():
            tests += [scenario(f"{alert} fires", alert, firing), scenario(f"{alert} is quiet", None, quiet)]
        tests += [scenario(f"{alert} fires for the other reason", alert, firing) for alert, firing in ALSO_FIRING.items()]
        self.run_tests(tests)

    def test_a_summary_names_a_node_where_there_is_one(self):
        tests = []
        for series, labels, summary in [
            (CASES["TautDown"][0], {"instance": "a"}, "Taut at a does not answer"),
            (ALSO_FIRING["TautDown"], {}, "Taut does not answer"),
        ]:
            annotations = next(rule["annotations"] for rule in rules() if rule["alert"] == "TautDown") | {"summary": summary}
            alerts = [{"exp_labels": {"job": "taut", "severity": "critical", **labels}, "exp_annotations": annotations}]
            case = {**scenario(summary, "TautDown", series), "alert_rule_test": [{"eval_time": "20m", "alertname": "TautDown", "exp_alerts": alerts}]}
            tests.append(case)
        self.run_tests(tests)

    def run_tests(self, tests):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "alerts.test.yml"
            file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
            promtool("test", "rules", file)

    def test_each_expression_uses_metrics_as_they_are(self):
        listed = Listed.of_the_page()
        for rule in rules():
            with self.subTest(rule["alert"]):
                listed.check(rule["expr"])

    def test_each_alert_has_a_severity_a_summary_and_a_paragraph_on_the_page(self):
        page = (REPOSITORY / "docs/alerts.md").read_text()
        headings = re.findall(r"^## (Taut\w+)$", page, re.M)
        self.assertEqual(headings, [rule["alert"] for rule in rules()])
        for rule in rules():
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ["critical", "warning"])
                self.assertTrue(rule["annotations"]["summary"])
                self.assertRegex(rule["annotations"]["runbook_url"], f"^(https://.*/)?docs/alerts.md#{rule['alert'].lower()}$")

    def test_prometheus_takes_the_configuration_that_pages_show(self):
        for page in ("alerts", "metrics"):
            (block,) = re.findall(r"^```yaml\n(.*?)^```$", (REPOSITORY / f"docs/{page}.md").read_text(), re.M | re.S)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "prometheus.yml"
                file.write_text(block.replace("/etc/prometheus/taut/alerts.yml", str(RULES)))
                promtool("check", "config", file)

    def test_the_page_names_metrics_that_there_are(self):
        listed = Listed.of_the_page()
        for name in re.findall(r"`((?:taut|process)_\w+)", (REPOSITORY / "docs/alerts.md").read_text()):
            self.assertTrue(listed.has(name), name)


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def scenario(name, alert, series):
    """With these series and a node that is up, this alert fires and no other; or none, if there is no alert."""
    written = {line.rsplit(" ", 1)[0] for line in series}
    series = series + [line for line in HEALTHY if line.rsplit(" ", 1)[0] not in written]
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in (line.rsplit(" ", 1) for line in series)],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "20m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else [],
            }
        ],
    }
