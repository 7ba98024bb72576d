#!/usr/bin/env python3
"""Makes taut.json, the dashboard for Grafana: deploy/grafana/build.py. Descriptions are those of docs/metrics.md."""

import json
from pathlib import Path
import re

FOLDER = Path(__file__).resolve().parent
WIDTH, HEIGHT, COLUMNS = 8, 8, 24

# Each row has panels: a title, a unit of Grafana, and the queries with their legends. `NODE` selects the nodes chosen above the dashboard,
# `APP` the apps. Where metrics of one node are shown, they are by instance; others are added up.
NODE = 'job="$job", instance=~"$instance"'
APP = f'{NODE}, app=~"$app"'

ROWS = {
    "Overview": [
        ("Nodes that are up", "none", [(f"count(up{{{NODE}}} == 1)", "nodes")]),
        ("Connections", "short", [(f"sum by (transport) (taut_connections{{{APP}}}) > 0", "{{transport}}")]),
        ("Connections by node", "short", [(f"sum by (instance) (taut_connections{{{APP}}})", "{{instance}}")]),
        ("Connections opened", "ops", [(f"sum by (instance) (rate(taut_connections_opened_total{{{NODE}}}[$__rate_interval]))", "{{instance}}")]),
        ("Channels", "short", [(f"sum by (app) (taut_channels{{{APP}}})", "app {{app}}")]),
        ("Subscriptions", "short", [(f"sum by (app) (taut_subscriptions{{{APP}}})", "app {{app}}")]),
    ],
    "Messages": [
        ("Events published", "ops", [(f"sum by (app) (rate(taut_events_published_total{{{APP}}}[$__rate_interval]))", "app {{app}}")]),
        ("Events delivered", "ops", [(f"sum by (app) (rate(taut_events_delivered_total{{{APP}}}[$__rate_interval]))", "app {{app}}")]),
        (
            "Messages from clients",
            "ops",
            [
                (f"sum(rate(taut_messages_received_total{{{APP}}}[$__rate_interval]))", "messages"),
                (f"sum(rate(taut_client_events_total{{{APP}}}[$__rate_interval]))", "client events"),
            ],
        ),
        (
            "Bytes",
            "Bps",
            [
                (f"sum(rate(taut_delivered_bytes_total{{{APP}}}[$__rate_interval]))", "delivered"),
                (f"sum(rate(taut_received_bytes_total{{{APP}}}[$__rate_interval]))", "received"),
            ],
        ),
        (
            "Time from publisher to sockets",
            "s",
            [
                (f"histogram_quantile({quantile}, sum by (le) (rate(taut_delivery_duration_seconds_bucket{{{NODE}}}[$__rate_interval])))", f"{quantile}")
                for quantile in (0.5, 0.99, 0.999)
            ],
        ),
        (
            "Time of HTTP requests (0.99)",
            "s",
            [
                (
                    f"histogram_quantile(0.99, sum by (le, route) (rate(taut_http_request_duration_seconds_bucket{{{NODE}}}[$__rate_interval])))",
                    "{{route}}",
                )
            ],
        ),
    ],
    "What is refused, and who is too slow": [
        ("Refusals by reason", "ops", [(f"sum by (what, reason) (rate(taut_refusals_total{{{NODE}}}[$__rate_interval])) > 0", "{{what}}: {{reason}}")]),
        ("Refusals by app", "ops", [(f"sum by (app) (rate(taut_refusals_total{{{APP}}}[$__rate_interval])) > 0", "app {{app}}")]),
        ("HTTP requests by status", "ops", [(f"sum by (status) (rate(taut_http_requests_total{{{NODE}}}[$__rate_interval]))", "{{status}}")]),
        (
            "Slow clients",
            "ops",
            [
                (f"sum(rate(taut_connections_kicked_total{{{NODE}}}[$__rate_interval]))", "connections closed"),
                (f"sum(rate(taut_messages_dropped_total{{{NODE}}}[$__rate_interval]))", "messages dropped"),
            ],
        ),
        (
            "Handshakes that failed",
            "ops",
            [
                (f"sum(rate(taut_handshakes_refused_total{{{NODE}}}[$__rate_interval]))", "refused or given up"),
                (f"sum(rate(taut_sockets_unannounced_total{{{NODE}}}[$__rate_interval]))", "without a PROXY header"),
            ],
        ),
        (
            "Connections that broke rules",
            "ops",
            [
                (f"sum(rate(taut_protocol_violations_total{{{NODE}}}[$__rate_interval]))", "protocol"),
                (f"sum(rate(taut_connections_overloaded_total{{{NODE}}}[$__rate_interval]))", "unfinished messages"),
            ],
        ),
    ],
    "The process": [
        ("Processor time", "percentunit", [(f"rate(process_cpu_seconds_total{{{NODE}}}[$__rate_interval])", "{{instance}}")]),
        ("Memory", "bytes", [(f"process_resident_memory_bytes{{{NODE}}}", "{{instance}}")]),
        ("Certificate ends in", "s", [(f"taut_tls_certificate_expiry_timestamp_seconds{{{NODE}}} - time()", "{{instance}}")]),
        ("Orders of certificates", "short", [(f"sum by (instance, outcome) (increase(taut_acme_orders_total{{{NODE}}}[$__rate_interval]))", "{{instance}}: {{outcome}}")]),
        (
            "Memory for each connection",
            "bytes",
            [
                (
                    f"process_resident_memory_bytes{{{NODE}}} / on (instance) sum by (instance) (taut_connections{{{NODE}}})",
                    "{{instance}}",
                )
            ],
        ),
        ("File descriptors in use", "percentunit", [(f"process_open_fds{{{NODE}}} / process_max_fds{{{NODE}}}", "{{instance}}")]),
        ("Time since the start", "s", [(f"taut_uptime_seconds{{{NODE}}}", "{{instance}}")]),
        ("Versions", "none", [(f"count by (version) (taut_build_info{{{NODE}}})", "{{version}}")]),
    ],
    "Webhooks": [
        (
            "Webhooks that wait",
            "short",
            [
                (f"sum by (instance) (taut_webhooks_waiting{{{NODE}}})", "{{instance}}"),
                (f"sum by (instance) (taut_webhooks_in_flight{{{NODE}}})", "{{instance}}, under way"),
            ],
        ),
        ("Age of the oldest", "s", [(f"taut_webhooks_oldest_seconds{{{NODE}}}", "{{instance}}")]),
        (
            "Webhooks sent",
            "ops",
            [
                (f"sum(rate(taut_webhooks_delivered_total{{{NODE}}}[$__rate_interval]))", "delivered"),
                (f"sum(rate(taut_webhooks_failed_total{{{NODE}}}[$__rate_interval]))", "failed, tried again"),
                (f"sum(rate(taut_webhooks_dead_total{{{NODE}}}[$__rate_interval]))", "given up"),
                (f"sum(rate(taut_webhooks_dropped_total{{{NODE}}}[$__rate_interval]))", "without room"),
            ],
        ),
    ],
    "Routes": [
        ("Connections of routes", "short", [(f"sum by (route) (taut_route_connections{{{NODE}}})", "{{route}}")]),
        ("Events by result", "ops", [(f"sum by (route, result) (rate(taut_route_events_total{{{NODE}}}[$__rate_interval])) > 0", "{{route}}: {{result}}")]),
        (
            "Time of events (0.99)",
            "s",
            [
                (
                    f"histogram_quantile(0.99, sum by (le, route) (rate(taut_route_event_duration_seconds_bucket{{{NODE}}}[$__rate_interval])))",
                    "{{route}}",
                )
            ],
        ),
        ("Events that wait", "short", [(f"sum by (route) (taut_route_events_waiting{{{NODE}}})", "{{route}}")]),
        ("Backends left alone", "short", [(f"sum by (route) (taut_route_breaker_open{{{NODE}}})", "{{route}}, nodes")]),
    ],
    "Cluster": [
        ("State", "none", [(f"sum by (state) (taut_cluster_state{{{NODE}}}) > 0", "{{state}}")]),
        ("Nodes that the engine knows", "none", [(f"max by (job) (taut_cluster_nodes{{{NODE}}})", "nodes")]),
        ("Time of the engine", "s", [(f"taut_cluster_lag_seconds{{{NODE}}}", "{{instance}}")]),
        ("Requests that wait for the engine", "short", [(f"taut_cluster_waiting{{{NODE}}}", "{{instance}}")]),
        ("Losses of the engine", "short", [(f"increase(taut_cluster_losses_total{{{NODE}}}[$__rate_interval])", "{{instance}}")]),
    ],
}

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard():
    """The text of taut.json."""
    return (
        json.dumps(
            {
                "uid": "taut",
                "title": "Taut",
                "tags": ["taut", "websocket"],
                "schemaVersion": 39,
                "version": 1,
                "editable": True,
                "timezone": "browser",
                "refresh": "30s",
                "time": {"from": "now-1h", "to": "now"},
                "templating": {
                    "list": [
                        {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "current": {}},
                        variable("job", "Job", "label_values(taut_build_info, job)", several=False),
                        variable("instance", "Node", 'label_values(taut_build_info{job="$job"}, instance)'),
                        variable("app", "App", 'label_values(taut_connections{job="$job"}, app)'),
                    ]
                },
                "annotations": {"list": []},
                "panels": list(panels()),
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )


def variable(name, label, query, several=True):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "current": {"text": "All", "value": "$__all"} if several else {},
    }


def panels():
    number, y = 0, 0
    descriptions = described()
    for row, members in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}
        y += 1
        for index, (title, unit, queries) in enumerate(members):
            number += 1
            x = index * WIDTH % COLUMNS
            yield panel(number, title, unit, queries, descriptions, {"x": x, "y": y + index * WIDTH // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT})
        y += -(-len(members) * WIDTH // COLUMNS) * HEIGHT


def panel(number, title, unit, queries, descriptions, place):
    names = dict.fromkeys(name for query, _ in queries for name in re.findall(r"\b(?:taut|process)_\w+", query))
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": "\n\n".join(f"`{base}`: {descriptions[base]}" for base in dict.fromkeys(name.removesuffix("_bucket") for name in names)),
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend, "range": True}
            for index, (query, legend) in enumerate(queries)
        ],
    }


def described():
    """What docs/metrics.md says of each metric."""
    page = (FOLDER.parents[1] / "docs/metrics.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| \w+ \| [^|]* \| (.*) \|$", page, re.M))


if __name__ == "__main__":
    (FOLDER / "taut.json").write_text(dashboard())
