"""A certificate authority for tests: pebble, with a DNS server that knows every name, behind a proxy that counts requests."""

import base64
import collections
import contextlib
import datetime
import http.client
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

WITHIN = 30

# What the paths begin with where an order, an account and a time to renew are asked for.
ORDER, ACCOUNT, SUGGESTION = "order-plz", "sign-me-up", "renewal-info"


def free_port():
    """A port that is free for TCP and UDP."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                datagrams.bind(stream.getsockname())
                return stream.getsockname()[1]


def eventually(what, is_so):
    until = time.monotonic() + WITHIN
    while not is_so():
        if time.monotonic() > until:
            raise AssertionError(f"not within {WITHIN} s: {what()}")
        time.sleep(0.02)


class Programs:
    """Programs with one folder, which end together."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="taut-acme-")
        self.processes = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, name, *command, **environment):
        with open(self.path(f"{name}.log"), "a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **environment})
        self.processes.append(process)
        return process

    def log(self, name):
        with open(self.path(f"{name}.log")) as log:
            return log.read()

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait(WITHIN)
        shutil.rmtree(self.folder, ignore_errors=True)


class Names(Programs):
    """A DNS server for which every name leads to 127.0.0.1, and a certificate for `localhost` with its root."""

    def __init__(self):
        super().__init__()
        self.port = free_port()
        self.management = free_port()
        self.start("dns", "pebble-challtestsrv", "-dns01", f"127.0.0.1:{self.port}", "-defaultIPv6", "", "-http01", "", "-https01", "",
                   "-tlsalpn01", "", "-management", f"127.0.0.1:{self.management}")
        self.root, self.certificate, self.key = self.path("root.pem"), self.path("localhost.pem"), self.path("localhost.key")
        self.make_certificate()
        eventually(lambda: self.log("dns"), lambda: self.lead("127.0.0.1", "localhost"))

    def make_certificate(self):
        def openssl(*arguments):
            subprocess.run(("openssl", *arguments), check=True, capture_output=True, cwd=self.folder)
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        openssl(*new, "-subj", "/CN=root of the test", "-keyout", "root.key", "-out", "root.pem")
        openssl(*new, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
                "-CA", "root.pem", "-CAkey", "root.key", "-keyout", "localhost.key", "-out", "localhost.pem")

    def lead(self, address, name):
        """Makes a name lead to an address; whether the server has heard of it."""
        body = json.dumps({"host": f"{name}.", "addresses": [address]}).encode()
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.management}/add-a", body, WITHIN) as answer:
                return answer.status == 200
        return False


class Pebble(Programs):
    """The authority itself, which forgets everything when it ends. It connects to this port where others connect to 443."""

    def __init__(self, names, port, tls_port, *, refused_nonces=5, **settings):
        super().__init__()
        self.port, self.management, self.names = port, free_port(), names
        config = {"listenAddress": f"127.0.0.1:{port}", "managementListenAddress": f"127.0.0.1:{self.management}",
                  "certificate": names.certificate, "privateKey": names.key, "httpPort": 1, "tlsPort": tls_port, **settings}
        with open(self.path("pebble.json"), "w") as file:
            json.dump({"pebble": config}, file)
        self.start("pebble", "pebble", "-strict", "-config", "pebble.json", "-dnsserver", f"127.0.0.1:{names.port}",
                   PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT=str(refused_nonces), PEBBLE_AUTHZREUSE="0")
        self.trust = ssl.create_default_context(cafile=names.root)
        self.root = None
        eventually(lambda: self.log("pebble"), self.read_root)

    def read_root(self):
        """What the certificates that it issues are trusted by."""
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"https://localhost:{self.management}/roots/0", context=self.trust, timeout=WITHIN) as answer:
                self.root = answer.read().decode()
        return self.root


class Proxy:
    """Stands in front of an authority: counts what it is asked, refuses for it, and suggests when to renew, which pebble 2.4 does not."""

    def __init__(self, names, pebble_port):
        self.requests = collections.Counter()
        self.refusal = None  # (status, headers, problem) instead of an order
        self.renew_now = False
        self.ask_again = "3600"  # the Retry-After of a suggestion; none if empty
        self.renewed = []
        self.trust = ssl.create_default_context(cafile=names.root)
        self.pebble_port = pebble_port
        handler = type("Handler", (Handler,), {"proxy": self})
        self.server = Server(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(names.certificate, names.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.directory = f"https://localhost:{self.server.server_port}/dir"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, kind):
        return self.requests[kind]

    def total(self):
        return sum(self.requests.values())

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that is stopped does not wait for its answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy = None

    def pass_on(self):
        kind = self.path.split("/")[1]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, content = self.result(kind, body)
        # Pebble refuses some nonces at random: such a request is sent again, and counts once.
        self.proxy.requests["nonce" if status == 400 and b"badNonce" in content else kind] += 1
        self.answer(status, headers, content)

    def result(self, kind, body):
        if kind == ORDER and self.proxy.refusal:
            return self.proxy.refusal
        if kind == SUGGESTION:
            pause = {"Retry-After": self.proxy.ask_again} if self.proxy.ask_again else {}
            return 200, {**pause, "Content-Type": "application/json"}, self.suggestion()
        try:
            status, headers, content = self.ask(body)
        except OSError:
            return 502, {"Content-Type": "text/plain"}, b"the authority is down\n"
        return status, headers, self.add_to(kind, body, status, content)

    def ask(self, body):
        """With the Host that was asked: pebble makes its URLs of it, and clients sign them."""
        connection = http.client.HTTPSConnection("localhost", self.proxy.pebble_port, timeout=WITHIN, context=self.proxy.trust)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body or None, dict(self.headers))
            answer = connection.getresponse()
            left_out = ("content-length", "transfer-encoding", "connection")
            return answer.status, {name: value for name, value in answer.headers.items() if name.lower() not in left_out}, answer.read()

    do_GET = do_HEAD = do_POST = pass_on

    def suggestion(self):
        """A window that is over, or one that is far away (RFC 9773, section 4.2)."""
        hours = -2 if self.proxy.renew_now else 24
        start = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
        end = start + datetime.timedelta(hours=1)
        return json.dumps({"suggestedWindow": {"start": start.strftime("%Y-%m-%dT%H:%M:%SZ"), "end": end.strftime("%Y-%m-%dT%H:%M:%SZ")}}).encode()

    def add_to(self, kind, body, status, content):
        """RFC 9773, section 4.1 and 5: the directory names the resource, and an order repeats what it replaces."""
        if kind == "dir" and status == 200:
            return json.dumps({**json.loads(content), "renewalInfo": f"https://{self.headers['Host']}/renewal-info"}).encode()
        if kind == ORDER and status == 201:
            payload = json.loads(body)["payload"]
            asked = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            if "replaces" in asked:
                self.proxy.renewed.append(asked["replaces"])
                return json.dumps({**json.loads(content), "replaces": asked["replaces"]}).encode()
        return content

    def answer(self, status, headers, content):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass

