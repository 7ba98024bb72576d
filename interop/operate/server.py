"""A running server against what the other tests believe: its metrics are those of the page, and it follows files as Kubernetes changes them."""

import http.client
import os
from pathlib import Path
import subprocess
import tempfile
import time
import unittest

from metrics import Listed

TAUT = os.environ["TAUT_BIN"]
WITHIN = 20

# Nobody listens on port 1: there are metrics of an engine, a backend and a webhook without any of them.
SETTINGS = """
[cluster]
url = "redis://127.0.0.1:1"

[[routes]]
path = "/chat/{room}"
backend = "http://127.0.0.1:1/chat"
"""
APPS = '[[apps]]\nid = "{0}"\nkey = "key-{0}"\nsecret = "secret-{0}"\nwebhooks = [{{ url = "http://127.0.0.1:1/" }}]\n'

# Only an engine knows them.
NOT_WITHOUT_AN_ENGINE = {"taut_cluster_nodes"}
NOT_WITHOUT_TLS = {"taut_tls_certificate_expiry_timestamp_seconds", "taut_acme_orders_total"}


class AServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.volume = Volume(Path(cls.folder.name) / "taut")
        cls.volume.write(SETTINGS + APPS.format(1))
        words = [TAUT, "serve", "--listen", "127.0.0.1:0", "--metrics-token", "the-token-of-the-metrics", "--config", cls.volume.path / "taut.toml"]
        cls.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        cls.port = int(cls.process.stdout.readline().rsplit(":", 1)[1])

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        _, log = cls.process.communicate(timeout=WITHIN)
        cls.folder.cleanup()
        assert cls.process.returncode == 0, log

    def test_its_metrics_are_those_that_alerts_and_dashboard_are_checked_against(self):
        self.assertEqual(self.ask("/apps/1/channels")[0], 401)
        page, served = Listed.of_the_page().metrics, Listed.of_a_server(self.ask("/metrics")[1]).metrics
        self.assertEqual(set(page) - NOT_WITHOUT_AN_ENGINE - NOT_WITHOUT_TLS, set(served))
        for name, (kind, labels) in served.items():
            self.assertEqual((kind, labels), page[name], name)

    def test_it_follows_a_volume_of_kubernetes(self):
        self.assertEqual(self.ask("/up/2")[0], 404)
        self.volume.write(SETTINGS + APPS.format(1) + APPS.format(2))
        until = time.monotonic() + WITHIN
        while self.ask("/up/2")[0] != 200:
            self.assertLess(time.monotonic(), until, "the new app is not served")
            time.sleep(0.05)

    def ask(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN)
        connection.request("GET", path, headers={"Authorization": "Bearer the-token-of-the-metrics"})
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer


class Volume:
    """A folder as the kubelet makes it of a Secret: taut.toml leads to ..data, which leads to a folder that is replaced as a whole."""

    def __init__(self, path):
        self.path, self.version = path, 0
        path.mkdir()
        (path / "taut.toml").symlink_to("..data/taut.toml")

    def write(self, text):
        self.version += 1
        folder = self.path / f"..{self.version}"
        folder.mkdir()
        (folder / "taut.toml").write_text(text)
        link = self.path / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(self.path / "..data")
