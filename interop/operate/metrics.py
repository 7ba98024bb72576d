"""The metrics that there are, by docs/metrics.md or by a running server, and whether PromQL uses them as they are."""

from dataclasses import dataclass, field
from pathlib import Path
import re
import subprocess

REPOSITORY = Path(__file__).resolve().parents[2]

# Prometheus' own metrics and labels, of each target that it reads.
OF_PROMETHEUS = {"up": ("gauge", set())}
LABELS_OF_TARGETS = {"job", "instance", "le"}

OF_COUNTERS = {"rate", "irate", "increase"}
OF_GAUGES = {"deriv", "delta", "idelta", "predict_linear", "max_over_time", "min_over_time", "avg_over_time"}
PARTS_OF_A_HISTOGRAM = ("_bucket", "_sum", "_count")


@dataclass
class Listed:
    """Metrics by name: their type, and their labels."""

    metrics: dict = field(default_factory=dict)

    @classmethod
    def of_the_page(cls):
        """As docs/metrics.md lists them, which is generated from the program."""
        page = (REPOSITORY / "docs/metrics.md").read_text()
        rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \|", page, re.M)
        return cls({name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows})

    @classmethod
    def of_a_server(cls, text):
        """As a server gives them. Labels are those of samples: a metric without any has none."""
        listed = cls({name: (kind, set()) for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M)})
        for name, labels in re.findall(r"^(\w+)\{(.*)\} \S+$", text, re.M):
            listed.metrics[listed.base(name)][1].update(set(re.findall(r'(\w+)="', labels)) - {"le"})
        return listed

    def has(self, name):
        return self.base(name) in self.metrics

    def base(self, name):
        """The metric that a series belongs to."""
        for part in PARTS_OF_A_HISTOGRAM:
            if name.endswith(part) and self.metrics.get(name.removesuffix(part), ("", ()))[0] == "histogram":
                return name.removesuffix(part)
        return name

    def check(self, expression):
        """Raises what is wrong with how the expression uses metrics. That it is PromQL is Prometheus' tool to say."""
        known = {**self.metrics, **OF_PROMETHEUS}
        used = set()
        for name, matchers in re.findall(r"\b((?:taut|process)_\w+|up)\b(?:\{([^}]*)\})?", expression):
            base = self.base(name)
            if base not in known:
                raise AssertionError(f"there is no metric {name}")
            kind, labels = known[base]
            if kind == "histogram" and base == name:
                raise AssertionError(f"{name} is a histogram: use its buckets, its sum or its count")
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers or ""):
                if label not in labels | LABELS_OF_TARGETS:
                    raise AssertionError(f"{name} has no label {label}")
            used |= labels
        for function, name in re.findall(r"\b(\w+)\(\s*((?:taut|process)_\w+)", expression):
            is_counter = known[self.base(name)][0] in ("counter", "histogram")
            if (function in OF_COUNTERS and not is_counter) or (function in OF_GAUGES and is_counter):
                raise AssertionError(f"{function}() of {name}, which is a {known[self.base(name)][0]}")
        for quantile in re.findall(r"histogram_quantile\([^,]+,(.*)", expression):
            if "_bucket" not in quantile or "le" not in quantile:
                raise AssertionError(f"histogram_quantile() needs buckets by le: {quantile}")
        for grouped in re.findall(r"\bby\s*\(([^)]*)\)", expression):
            for label in filter(None, re.split(r"[,\s]+", grouped)):
                if label not in used | LABELS_OF_TARGETS and not label.startswith("$"):
                    raise AssertionError(f"none of these metrics has a label {label}: {expression}")


def promtool(*words):
    """Runs Prometheus' own tool, which must have nothing against it."""
    ran = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True)
    if ran.returncode:
        raise AssertionError(f"promtool {words[0]} {words[1]}: {ran.stdout}{ran.stderr}")
