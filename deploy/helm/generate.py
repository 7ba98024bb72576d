#!/usr/bin/env python3
"""Makes the chart's README.md and values.schema.json from its values.yaml: deploy/helm/generate.py, which needs PyYAML."""

import json
from pathlib import Path
import re

import yaml

CHART = Path(__file__).parent / "taut"

# What a default does not tell. All other maps and lists are as the default has them.
CHOICES = {
    "image.pullPolicy": ["Always", "IfNotPresent", "Never"],
    "service.type": ["ClusterIP", "NodePort", "LoadBalancer"],
    "service.externalTrafficPolicy": ["", "Cluster", "Local"],
    "service.ipFamilyPolicy": ["", "SingleStack", "PreferDualStack", "RequireDualStack"],
    "service.sessionAffinity": ["None", "ClientIP"],
}
WHOLE_OR_NOTHING = ["service.nodePort", "autoscaling.targetCPU", "autoscaling.targetConnections"]
WHOLE_OR_SHARE = ["podDisruptionBudget.maxUnavailable"]
OPEN_MAPS = ["resources", "podSecurityContext", "securityContext", "metrics.grafanaDashboard.labels"]
TEXTS = ["trustedProxies", "service.loadBalancerSourceRanges", "ingress.hosts", "httpRoute.hostnames", "persistence.accessModes"]
APP = {
    "type": "object",
    "required": ["id"],
    # As numbers they would be other texts: 0123 is 83.
    "properties": {"id": {"type": "string"}, "key": {"type": "string"}, "secret": {"type": "string"}},
}


def generate():
    """The text of each file, by its name."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **schema_of(values), "title": "Values"}
    # Helm puts it there when the chart is part of another one.
    schema["properties"]["global"] = {"type": "object"}
    return {"README.md": readme(text, values), "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"}


def schema_of(value, name=""):
    if name in CHOICES:
        return {"enum": CHOICES[name]}
    if name in WHOLE_OR_NOTHING:
        return {"type": ["integer", "null"], "minimum": 1}
    if name in WHOLE_OR_SHARE:
        return {"type": ["integer", "string"]}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, str):
        return {"type": "string"}
    if isinstance(value, list):
        return {"type": "array", "items": APP if name == "apps" else {"type": "string"} if name in TEXTS else {"type": "object"}}
    if not value or name in OPEN_MAPS:
        return {"type": "object"}
    properties = {key: schema_of(inner, f"{name}.{key}".lstrip(".")) for key, inner in value.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def readme(text, values):
    comments = comments_of(text)
    rows = [f"| `{name}` | `{json.dumps(value, ensure_ascii=False)}` | {comments.get(name, '')} |" for name, value in leaves(values)]
    return f"""# The chart of Taut

This page is made from `values.yaml`; [docs/kubernetes.md](../../../docs/kubernetes.md) shows how to use the chart.

| value | default | |
|---|---|---|
{chr(10).join(rows)}
"""


def leaves(value, name=""):
    """Each value that can be set on its own, and those maps that have a comment of their own or are open."""
    for key, inner in value.items():
        path = f"{name}.{key}".lstrip(".")
        if isinstance(inner, dict) and inner and path not in OPEN_MAPS:
            yield from leaves(inner, path)
        else:
            yield path, inner


def comments_of(text):
    """The comment `# -- …` above a value, by the value's path."""
    comments, above, comment = {}, [], ""
    for line in text.splitlines():
        if found := re.match(r" *# -- (.*)", line):
            comment = found[1]
        elif found := re.match(r"( *)(\w+):", line):
            depth = len(found[1]) // 2
            above = [*above[:depth], found[2]]
            comments[".".join(above)], comment = comment, ""
    return comments


if __name__ == "__main__":
    for file, content in generate().items():
        (CHART / file).write_text(content)
