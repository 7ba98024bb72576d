"""Traces of a real server, as a real collector passes them on and as other programs are told of them."""

import contextlib
import gzip
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse

import rotel
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TAUT = os.environ["TAUT_BIN"]
WITHIN = 30
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
UNSAMPLED = f"00-{TRACE}-{CALLER}-00"
SECRET = "hunter2-of-the-shop"
# What must be in no span: secrets, people and what they say to each other.
NEVER = [SECRET, "anna", "lobby", "greeting", "good morning", "auth_signature", "auth_key", "token-of-anna", "hook-token"]


class Receiver(http.server.ThreadingHTTPServer):
    """Takes requests and answers each as the test says."""

    daemon_threads = True

    def __init__(self, answer):
        self.answer, self.requests = answer, queue.Queue()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status, kind, text = receiver.answer(self, body)
                receiver.requests.put((self.path, self.headers, body))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A server that is stopped leaves requests behind."""

    def next(self):
        return self.requests.get(timeout=WITHIN)

    def __exit__(self, *details):
        self.shutdown()
        super().__exit__(*details)


class Sink(Receiver):
    """Where spans end: it speaks OTLP over HTTP."""

    def __init__(self):
        self.status = 200
        self.bytes = b""
        self.spans = {}
        self.resources = []
        self.told = threading.Condition()
        super().__init__(self.take)

    def take(self, request, body):
        assert request.path == "/v1/traces", request.path
        assert request.headers["content-type"] == "application/x-protobuf", request.headers
        if self.status != 200:
            return self.status, "text/plain", b"no"
        if request.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        export = ExportTraceServiceRequest.FromString(body)
        with self.told:
            self.bytes += body
            for resource in export.resource_spans:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    assert scope.scope.name == "taut", scope.scope
                    self.spans |= {span.span_id.hex(): span for span in scope.spans}
            self.told.notify_all()
        return 200, "application/x-protobuf", b""

    def wait(self, count, **wanted):
        """So many spans like this, in the order of their beginnings."""

        def found():
            found = [span for span in self.spans.values() if is_like(span, **wanted)]
            return sorted(found, key=lambda span: span.start_time_unix_nano)

        with self.told:
            if not self.told.wait_for(lambda: len(found()) >= count, WITHIN):
                raise AssertionError(f"not within {WITHIN} s: {count} × {wanted}, but {self.spans}")
            return found()


def is_like(span, name=None, trace=None, parent=None):
    return (
        (name is None or span.name == name)
        and (trace is None or span.trace_id.hex() == trace)
        and (parent is None or span.parent_span_id.hex() == parent)
    )


def attributes(thing):
    kinds = {"string_value", "int_value"}
    values = {pair.key: (pair.value.WhichOneof("value"), pair.value) for pair in thing.attributes}
    assert all(kind in kinds for kind, _ in values.values()), values
    return {key: getattr(value, kind) for key, (kind, value) in values.items()}


class Taut:
    """The server, with an app whose webhooks and upgrades other programs are asked about."""

    def __init__(self, collector, webhooks=None, callback=None, level="error", **environment):
        self.folder = tempfile.TemporaryDirectory(prefix="taut-otel-")
        self.config = pathlib.Path(self.folder.name, "taut.toml")
        self.hook, self.callback = webhooks, callback
        self.configure(level)
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            # Others of this machine are not to have a say.
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TAUT_"))},
            **environment,
        }
        self.process = subprocess.Popen(
            [TAUT, "serve", "--config", self.config, "--listen", "127.0.0.1:0", "--shards", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in variables.items() if value is not None},
        )
        self.log, self.logged = "", threading.Condition()
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://"), line
        self.address = line.strip().removeprefix("listening on http://")

    def configure(self, level):
        text = f'log-level = "{level}"\n[[apps]]\nid = "shop"\nkey = "shop-key"\nsecret = "{SECRET}"\n'
        if self.hook:
            text += f'[[apps.webhooks]]\nurl = "{self.hook}/hook?token=hook-token"\n'
        if self.callback:
            text += f'[apps.upgrade]\ncallback = "{self.callback}/may-it?token=hook-token"\n'
        self.config.write_text(text)

    def listen(self):
        for line in self.process.stderr:
            with self.logged:
                self.log += re.sub(r"\x1b\[[0-9;]*m", "", line)
                self.logged.notify_all()

    def wait_log(self, text):
        with self.logged:
            assert self.logged.wait_for(lambda: text in self.log, WITHIN), f"no {text!r} in:\n{self.log}"

    def request(self, method, path, body=b"", **headers):
        connection = http.client.HTTPConnection(self.address, timeout=WITHIN)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def signed(self, method, path, body=b"", secret=SECRET, query="", **headers):
        query += f"auth_key=shop-key&auth_timestamp={int(time.time())}&auth_version=1.0"
        if body:
            query += f"&body_md5={hashlib.md5(body).hexdigest()}"
        text = f"{method}\n{path}\n{'&'.join(sorted(query.split('&')))}"
        signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return self.request(method, f"{path}?{query}&auth_signature={signature}", body, **headers)

    def publish(self, channels=("lobby", "lobby-2"), **options):
        event = {"name": "greeting", "channels": list(channels), "data": "good morning"}
        return self.signed("POST", "/apps/shop/events", json.dumps(event).encode(), **options)

    def upgrade(self, **headers):
        host, port = self.address.split(":")
        stream = socket.create_connection((host, int(port)), WITHIN)
        lines = [
            "GET /app/shop-key?protocol=7&token=token-of-anna HTTP/1.1",
            f"Host: {self.address}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            part = stream.recv(1)
            assert part, head
            head += part
        return stream, head.decode()

    def stop(self):
        """Says how long that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WITHIN) == 0
        took = time.monotonic() - began
        self.listener.join()
        return took

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.join()
        self.process.stdout.close()
        self.process.stderr.close()
        self.folder.cleanup()


@contextlib.contextmanager
def collector(sink):
    """A collector of another's making, which passes on to the sink."""
    with tempfile.TemporaryDirectory(prefix="taut-otel-") as folder, contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
        stack.pop_all().close()
        agent = pathlib.Path(rotel.__file__).parent / "rotel-agent"
        options = {
            "otlp-http-endpoint": f"127.0.0.1:{ports[0]}",
            "otlp-grpc-endpoint": f"127.0.0.1:{ports[1]}",
            "exporter": "otlp",
            "otlp-exporter-protocol": "http",
            "otlp-exporter-endpoint": sink.url,
            "pid-file": f"{folder}/pid",
            "log-file": f"{folder}/log",
        }
        command = [agent, "start", *(part for name, value in options.items() for part in (f"--{name}", value))]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + WITHIN
            while time.monotonic() < until:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", ports[0]), 1).close()
                    break
                assert process.poll() is None, "the collector has ended"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{ports[0]}"
        finally:
            process.kill()
            process.wait()


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Traces(unittest.TestCase):
    def test_a_publish_belongs_to_the_callers_trace_and_a_real_collector_takes_it(self):
        with Sink() as sink, collector(sink) as address, Taut(address) as taut:
            self.assertEqual(taut.publish(traceparent=SAMPLED, tracestate="vendor=value")[0], 200)
            [request] = sink.wait(1, name="POST /apps/{app}/events")
            self.assertEqual((request.trace_id.hex(), request.parent_span_id.hex()), (TRACE, CALLER))
            self.assertEqual(request.kind, Span.SPAN_KIND_SERVER)
            self.assertEqual(request.trace_state, "vendor=value")
            self.assertEqual(request.status.code, Status.STATUS_CODE_UNSET)
            expected = {
                "http.request.method": "POST",
                "http.response.status_code": 200,
                "http.route": "/apps/{app}/events",
                "network.protocol.version": "1.1",
                "taut.app": "shop",
                "url.path": "/apps/shop/events",
                "url.scheme": "http",
            }
            self.assertEqual(attributes(request), expected)
            verify, fan_out = sink.wait(2, trace=TRACE, parent=request.span_id.hex())
            self.assertEqual((verify.name, fan_out.name), ("verify", "fan out"))
            self.assertEqual(attributes(verify), {})
            self.assertEqual(attributes(fan_out), {"taut.channels": 2})
            for part in (verify, fan_out):
                self.assertEqual(part.kind, Span.SPAN_KIND_INTERNAL)
                self.assertLessEqual(request.start_time_unix_nano, part.start_time_unix_nano)
                self.assertLessEqual(part.end_time_unix_nano, request.end_time_unix_nano)
            self.assertEqual(sink.resources[0]["service.name"], "taut")
            self.assertRegex(sink.resources[0]["service.version"], r"^\d+\.\d+\.\d+")

    def test_the_level_of_the_log_is_none_of_the_traces(self):
        with Sink() as sink, Taut(sink.url, level="off") as taut:
            taut.publish()
            sink.wait(1, name="POST /apps/{app}/events")
            taut.configure("trace")
            taut.process.send_signal(signal.SIGHUP)
            taut.wait_log("the configuration has been read again")
            taut.publish()
            _, second = sink.wait(2, name="POST /apps/{app}/events")
            # Whoever reads the log finds the trace.
            taut.wait_log(f"trace_id={second.trace_id.hex()}")
            self.assertNotIn("fan out", taut.log)
            self.assertEqual({len(span.events) for span in sink.spans.values()}, {0})

    def test_what_is_refused_is_an_error_only_where_it_is_the_servers(self):
        with Sink() as sink, Taut(sink.url) as taut:
            self.assertEqual(taut.publish(secret="wrong")[0], 401)
            self.assertEqual(taut.request("GET", "/apps/nobody/channels")[0], 404)
            self.assertEqual(taut.signed("POST", "/apps/shop/users/anna/terminate_connections", b"{}")[0], 200)
            [request] = sink.wait(1, name="POST /apps/{app}/events")
            self.assertEqual(attributes(request)["http.response.status_code"], 401)
            self.assertNotIn("taut.app", attributes(request))
            self.assertEqual(request.status.code, Status.STATUS_CODE_UNSET)
            [verify] = sink.wait(1, parent=request.span_id.hex())
            self.assertEqual((attributes(verify), verify.status.code), ({"error.type": "refused"}, Status.STATUS_CODE_ERROR))
            [unknown] = sink.wait(1, name="GET /apps/{app}/channels")
            self.assertEqual(attributes(unknown)["http.response.status_code"], 404)
            [termination] = sink.wait(1, name="POST /apps/{app}/users/{user}/terminate_connections")
            self.assertEqual(attributes(termination)["url.path"], "/apps/shop/users/REDACTED/terminate_connections")

    def test_a_webhook_is_a_request_whose_receiver_is_told_of_its_trace(self):
        statuses = iter([200, 500])
        with Sink() as sink, Receiver(lambda *_: (next(statuses, 200), "text/plain", b"")) as hook:
            with Taut(sink.url, webhooks=hook.url) as taut:
                stream, _ = taut.upgrade()
                with stream:
                    for channel, status in (("lobby", 200), ("lobby-2", 500)):
                        subscribe(stream, channel)
                        path, headers, _ = hook.next()
                        version, trace, span, flags = headers["traceparent"].split("-")
                        self.assertEqual((version, flags), ("00", "01"))
                        self.assertNotIn("tracestate", headers)
                        self.assertEqual(path, "/hook?token=hook-token")
                        [delivery] = sink.wait(1, name="POST webhook", trace=trace)
                        self.assertEqual((delivery.span_id.hex(), delivery.parent_span_id), (span, b""))
                        self.assertEqual(delivery.kind, Span.SPAN_KIND_CLIENT)
                        expected = {
                            "http.request.method": "POST",
                            "http.response.status_code": status,
                            "server.address": "127.0.0.1",
                            "server.port": hook.server_port,
                            "taut.app": "shop",
                            "url.full": f"{hook.url}/hook",
                        }
                        error = {} if status == 200 else {"error.type": "500"}
                        self.assertEqual(attributes(delivery), expected | error)
                        self.assertEqual(delivery.status.code == Status.STATUS_CODE_ERROR, status == 500)
                self.is_free_of_secrets(sink)

    def test_an_upgrade_that_the_application_decides_about_carries_the_callers_trace_there(self):
        answers = iter([(200, "application/json", b'{"user_id": "anna"}'), (403, "text/plain", b"not anna")])
        with Sink() as sink, Receiver(lambda *_: next(answers)) as application:
            with Taut(sink.url, callback=application.url) as taut:
                for status in (101, 403):
                    stream, head = taut.upgrade(traceparent=SAMPLED, Cookie="session=token-of-anna")
                    stream.close()
                    self.assertTrue(head.startswith(f"HTTP/1.1 {status} "), head)
                    _, headers, _ = application.next()
                    version, trace, span, flags = headers["traceparent"].split("-")
                    self.assertEqual((version, trace, flags), ("00", TRACE, "01"))
                    found = sink.wait(1 if status == 101 else 2, name="GET /app/{key}", trace=TRACE, parent=CALLER)
                    upgrade = found[-1]
                    [asked] = sink.wait(1, parent=upgrade.span_id.hex())
                    self.assertEqual(asked.span_id.hex(), span)
                    self.assertEqual((upgrade.kind, asked.kind), (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT))
                    self.assertEqual(asked.name, "POST upgrade callback")
                    self.assertEqual(attributes(upgrade)["http.response.status_code"], status)
                    self.assertEqual(attributes(upgrade)["url.path"], "/app/REDACTED")
                    self.assertEqual(attributes(asked)["url.full"], f"{application.url}/may-it")
                self.is_free_of_secrets(sink)

    def test_nothing_is_kept_that_the_caller_or_the_sampler_does_not_want(self):
        with Sink() as sink, Taut(sink.url) as taut:
            taut.publish(traceparent=UNSAMPLED)
            taut.publish()
            [request] = sink.wait(1, name="POST /apps/{app}/events")
            self.assertNotEqual(request.trace_id.hex(), TRACE)
            taut.stop()
            self.assertEqual(len(sink.spans), 3)
        with Sink() as sink, Receiver(lambda *_: (200, "text/plain", b"")) as hook:
            with Taut(sink.url, webhooks=hook.url, OTEL_TRACES_SAMPLER="always_off") as taut:
                taut.publish()
                stream, _ = taut.upgrade()
                with stream:
                    subscribe(stream, "lobby")
                    # Whoever gets it does not keep it either.
                    self.assertRegex(hook.next()[1]["traceparent"], "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")
                taut.stop()
            self.assertEqual(sink.spans, {})

    def test_neither_messages_nor_probes_nor_pages_are_traced(self):
        with Sink() as sink, Taut(sink.url) as taut:
            stream, _ = taut.upgrade(traceparent=SAMPLED)
            with stream:
                subscribe(stream, "lobby")
            for path in ("/up", "/ready", "/metrics", "/", "/console", "/nothing", "/pusher/info"):
                taut.request("GET", path, traceparent=SAMPLED)
            taut.request("POST", "/pusher/app/shop-key/123/session-of-anna/xhr?protocol=7", traceparent=SAMPLED)
            taut.publish()
            sink.wait(3)
            taut.stop()
            self.assertEqual({span.name for span in sink.spans.values()}, {"POST /apps/{app}/events", "verify", "fan out"})

    def test_what_is_left_is_sent_when_the_server_stops(self):
        with Sink() as sink, Taut(sink.url, OTEL_BSP_SCHEDULE_DELAY="3600000") as taut:
            taut.publish()
            self.assertEqual(sink.spans, {})
            taut.stop()
            self.assertEqual(len(sink.spans), 3)

    def test_a_collector_that_is_not_there_is_told_of_once_and_slows_nobody(self):
        address = f"http://127.0.0.1:{closed_port()}"
        with Taut(address, level="info") as taut:
            taut.wait_log("traces are sent")
            for _ in range(50):
                self.assertEqual(taut.publish()[0], 200)
            taut.wait_log("the collector does not take traces")
            for _ in range(50):
                self.assertEqual(taut.publish()[0], 200)
            self.assertLess(taut.stop(), 6)
            self.assertEqual(taut.log.count("the collector does not take traces"), 1, taut.log)
            self.assertNotIn("OpenTelemetry", taut.log)

    def test_a_collector_that_never_answers_holds_up_neither_requests_nor_the_end(self):
        with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with Taut(address, level="info", OTEL_BSP_MAX_QUEUE_SIZE="16", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8") as taut:
                began = time.monotonic()
                for _ in range(100):
                    self.assertEqual(taut.publish()[0], 200)
                self.assertLess(time.monotonic() - began, 5)
                self.assertLess(taut.stop(), 8)
                self.assertIn("the last traces could not be sent", taut.log)

    def test_the_log_says_when_the_collector_takes_traces_again(self):
        with Sink() as sink, Taut(sink.url, level="info") as taut:
            sink.status = 503
            taut.publish()
            taut.wait_log("the answer was 503 Service Unavailable")
            sink.status = 200
            taut.publish()
            taut.wait_log("the collector takes traces again")

    def test_the_standard_variables_are_understood(self):
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": None,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hunter2",
            "OTEL_SERVICE_NAME": "shop-events",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        with Sink() as sink:
            variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = sink.url + "/v1/traces"
            with Taut(None, level="info", **variables) as taut:
                taut.publish()
                sink.wait(3)
                self.assertEqual(sink.next()[1]["authorization"], "Bearer hunter2")
                self.assertEqual(sink.resources[0]["service.name"], "shop-events")
                self.assertEqual(sink.resources[0]["deployment.environment.name"], "test")
                line = next(line for line in taut.log.splitlines() if "traces are sent" in line)
                for part in (f'{sink.url}/v1/traces', "shop-events", "parentbased_always_on"):
                    self.assertIn(part, line)
                self.assertNotIn("hunter2", taut.log)

    def test_without_an_endpoint_nothing_is_sent_and_the_log_says_so(self):
        for variables in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}):
            with Taut(None, level="info", **variables) as taut:
                self.assertEqual(taut.publish()[0], 200)
                taut.stop()
                self.assertEqual(taut.log.count("no traces are sent"), 1, taut.log)

    def is_free_of_secrets(self, sink):
        for word in NEVER:
            self.assertNotIn(word.encode(), sink.bytes)


def subscribe(stream, channel):
    """Says so and waits for the answer, with the frames written by hand (RFC 6455 §5.2)."""
    text = json.dumps({"event": "pusher:subscribe", "data": {"channel": channel}}).encode()
    assert len(text) < 126
    stream.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    heard = b""
    while b"subscription_succeeded" not in heard or channel.encode() not in heard:
        part = stream.recv(4096)
        assert part, heard
        heard += part


if __name__ == "__main__":
    unittest.main()
