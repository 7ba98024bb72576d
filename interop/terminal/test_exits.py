"""Each exit code, by a real peer or a real failure."""

import signal
import socket
import subprocess
import unittest

import harness
from harness import Home, RawServer, Server, run


class Exits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(harness.behave, max_size=1000, ping_interval=None)
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        self.home = Home(self).path

    def ends(self, code, *arguments, saying="", text="", **variables):
        found, _, err = run(self.home, "connect", *arguments, text=text, **variables)
        self.assertEqual(found, code, err)
        self.assertIn(saying, err)
        return err

    def url(self, path=""):
        return f"ws://127.0.0.1:{self.server.port}{path}"

    def test_close_codes(self):
        for close, code, words in [
            (1000, 0, "normal closure"), (1001, 0, "going away"), (1002, 6, "protocol error"), (1003, 6, "unsupported"),
            (1007, 6, "invalid text"), (1008, 8, "policy violation"), (1009, 7, "too big"), (1011, 8, "server error"),
            (3000, 8, "3000"), (4001, 8, "application code"),
        ]:
            with self.subTest(close=close):
                err = self.ends(code, "-n", self.url(f"/close/{close}"), saying=words)
                self.assertIn("as you wish", err)

    def test_a_message_that_is_too_big_for_the_peer_or_for_us(self):
        self.ends(7, "-n", self.url(), text="x" * 1001 + "\n", saying="1009")
        self.ends(7, "-n", "--max-size", "500", "--send", "x" * 600, self.url(), saying="--max-size allows more")

    def test_refused_handshakes(self):
        for status in (401, 404, 503):
            self.ends(5, self.url(f"/status/{status}"), saying=f"{status} instead of 101: no!")

    def test_an_error_names_no_call_of_the_library(self):
        head = b"HTTP/1.1 101 Switching Protocols\r\n" + b"a: b\r\n" * 100_000
        server = RawServer(lambda connection: connection.sendall(head), answers=False)
        self.addCleanup(server.stop)
        err = self.ends(5, f"ws://127.0.0.1:{server.port}", saying="larger than the limit")
        self.assertNotIn("::", err.replace("ws://", ""))

    def test_what_cannot_be_reached(self):
        self.ends(2, f"ws://127.0.0.1:{harness.free_port()}", saying="cannot connect")
        self.ends(2, "ws://nobody.invalid/", saying="nobody.invalid")
        self.ends(2, "--unix", "/nowhere/socket", "ws://localhost/", saying="/nowhere/socket")
        silent = RawServer(lambda connection: connection.recv(1), answers=False)
        self.addCleanup(silent.stop)
        self.ends(2, "--connect-timeout", "200ms", f"ws://127.0.0.1:{silent.port}", saying="handshake")

    def test_tls(self):
        pair = harness.certificate(self.home)
        server = Server(harness.behave, tls=pair)
        self.addCleanup(server.stop)
        url = f"wss://localhost:{server.port}"
        self.ends(3, url, saying="certificate")
        self.ends(3, "-v", "--cacert", pair[0], "--server-name", "other.example", url, saying="by --server-name which")
        log = self.home / "keys"
        code, out, err = run(self.home, "connect", "-v", "-1", "--send", "hi", "--cacert", pair[0], url, SSLKEYLOGFILE=str(log))
        self.assertEqual((code, out), (0, b"hi\n"), err)
        for part in ["TLS 1.3, TLS_", "CN=A test", "for localhost, 127.0.0.1", "valid from", "< HTTP/1.1 101"]:
            self.assertIn(part, err)
        self.assertIn("CLIENT_TRAFFIC_SECRET_0", log.read_text())
        self.assertEqual(run(self.home, "connect", "-k", "-1", "--send", "hi", url)[:2], (0, b"hi\n"))

    def test_proxies(self):
        port = harness.free_port()
        settings = self.home / "tinyproxy.conf"
        settings.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth me s3cret\n")
        proxy = subprocess.Popen(["tinyproxy", "-d", "-c", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(proxy.wait)
        self.addCleanup(proxy.kill)
        harness.listens(port)
        self.ends(4, "--proxy", f"http://127.0.0.1:{port}", self.url(), saying="407")
        good = f"http://me:s3cret@127.0.0.1:{port}"
        code, out, err = run(self.home, "connect", "-v", "-1", "--send", "hi", "--proxy", good, self.url())
        self.assertEqual((code, out), (0, b"hi\n"), err)
        self.assertIn(f"through the proxy http://127.0.0.1:{port}", err)
        self.assertNotIn("s3cret", err)

    def test_protocol_errors(self):
        server = RawServer(lambda connection: connection.sendall(b"\x83\x00") or connection.recv(100))
        self.addCleanup(server.stop)
        # The server does not end the connection, either.
        self.ends(6, "-n", "--close-timeout", "300ms", f"ws://127.0.0.1:{server.port}")

    def test_a_connection_that_is_lost(self):
        server = RawServer(lambda connection: connection.close())
        self.addCleanup(server.stop)
        self.ends(9, "-n", f"ws://127.0.0.1:{server.port}", saying="1006")

    def test_a_message_that_is_cut_off(self):
        def cut_off(connection):
            connection.sendall(b"\x01\x03par\x88\x02\x03\xe8")
            connection.recv(100)
            connection.close()

        server = RawServer(cut_off)
        self.addCleanup(server.stop)
        for options in (["-n"], ["--expect", "part"]):
            self.ends(9, *options, f"ws://127.0.0.1:{server.port}", saying="in the middle of a message")

    def test_a_peer_that_closes_and_does_not_end_the_connection(self):
        kept = []
        server = RawServer(lambda connection: kept.append(connection) or connection.sendall(b"\x88\x02\x03\xe8"))
        self.addCleanup(server.stop)
        self.ends(0, "-n", "--close-timeout", "300ms", f"ws://127.0.0.1:{server.port}", saying="closed by the peer: 1000")

    def test_a_peer_that_does_not_answer_our_close(self):
        server = RawServer(lambda connection: connection.recv(1 << 20) and connection.recv(1 << 20))
        self.addCleanup(server.stop)
        self.ends(9, "--close-timeout", "300ms", f"ws://127.0.0.1:{server.port}", text="hi\n", saying="did not answer our close")

    def test_a_peer_that_is_silent(self):
        echo = harness.echo()
        self.addCleanup(echo.stop)
        process = harness.start(self.home, "connect", "-v", "-n", "--ping-interval", "200ms", "--ping-timeout", "300ms",
                                f"ws://127.0.0.1:{echo.port}")
        self.addCleanup(process.kill)
        for line in process.stderr:
            if line.startswith("← pong".encode()):
                break
        echo.signal(signal.SIGSTOP)
        _, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 10, err)
        self.assertIn(b"fell silent", err)

    def test_expect_once_and_timeout(self):
        self.ends(0, "--expect", "/^h.llo$/", "--send", "hello", self.url())
        self.ends(11, "--expect", "nothing", "--send", "please: close 1000", self.url())
        self.ends(8, "--expect", "nothing", "--send", "please: close 1011 oh", self.url())
        self.ends(11, "-1", self.url("/close/1000"))
        self.ends(124, "--expect", "nothing", "--timeout", "300ms", self.url(), saying="--timeout")
        self.assertEqual(run(self.home, "connect", "-1", self.url(), text="one\n")[:2], (0, b"one\n"))

    def test_signals_close_politely(self):
        for number, code, close in [(signal.SIGINT, 130, 1000), (signal.SIGTERM, 143, 1001)]:
            closed = []

            def note(connection, closed=closed):
                for message in connection:
                    connection.send(message)
                closed.append(connection.close_code)

            server = Server(note)
            process = harness.start(self.home, "connect", f"ws://127.0.0.1:{server.port}")
            self.addCleanup(process.kill)
            process.stdin.write(b"hi\n")
            process.stdin.flush()
            self.assertEqual(process.stdout.readline(), b"hi\n")
            process.send_signal(number)
            # Its input stays open: the end of that would close the connection as well.
            process.wait(harness.PATIENCE)
            process.communicate()
            server.stop()
            self.assertEqual((process.returncode, closed), (code, [close]))

    def test_usage(self):
        self.ends(64, "ftp://a.example/", saying="scheme")
        self.ends(64, "-H", "no header", self.url(), saying="NAME: VALUE")
        self.ends(64, "--bearer", "@/nowhere/token", self.url(), saying="/nowhere/token")
        self.ends(64, "curl", self.url(), "--data-raw", "x", saying="--data-raw")
        self.ends(64)
        self.ends(64, "--expect", "/(/", self.url(), saying="regex")


class Handshake(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(harness.behave, subprotocols=["json", "graphql-ws"])
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        self.home = Home(self).path

    def headers(self, *arguments, **variables):
        code, out, err = run(self.home, "connect", "--once", *arguments, **variables)
        self.assertEqual(code, 0, err)
        return out.decode(), err

    def test_headers_and_secrets(self):
        token = self.home / "token"
        token.write_text("t0ken\n")
        url = f"http://127.0.0.1:{self.server.port}/headers"
        out, err = self.headers("-v", "-H", "X-A: 1", "--bearer", f"@{token}", "-b", "id=s3cret", "-s", "json", "-o",
                                "http://a.example", url)
        for line in ["X-A: 1", "Authorization: Bearer t0ken", "Cookie: id=s3cret", "Origin: http://a.example"]:
            self.assertIn(f"{line}\n", out)
        self.assertIn("> Authorization: Bearer …", err)
        self.assertIn("(subprotocol json)", err)
        self.assertNotIn("t0ken", err)
        self.assertNotIn("s3cret", err)
        self.assertIn("Bearer from-environment", self.headers("-s", "json", url, TAUT_BEARER="from-environment")[0])
        for given in (["--basic", "me:you"], ["--bearer", "mine"], ["-H", "Authorization: Digest x"]):
            out, _ = self.headers("-s", "json", *given, url, TAUT_BEARER="from-environment")
            self.assertNotIn("from-environment", out)
            self.assertEqual(out.count("Authorization: "), 1)
        # The URL may lack its scheme on this machine.
        self.assertIn("Authorization: Basic bWU6eW91", self.headers("-s", "json", "--basic", "me:you", f":{self.server.port}/headers")[0])

    def test_lines_that_browsers_copy(self):
        url = f"ws://127.0.0.1:{self.server.port}/headers"
        chrome = f"""curl '{url}' -H 'Upgrade: websocket' -H 'Origin: http://app.example' -H 'Cache-Control: no-cache' \\
          -H 'Accept-Language: en-US,en;q=0.9' -H 'Pragma: no-cache' -H 'Connection: Upgrade' \\
          -H 'Sec-WebSocket-Key: 3sGyXYQ4qUW3xJ0mPmOqTw==' -b 'session=s3cret' -H 'User-Agent: Mozilla/5.0 Chrome/141' \\
          -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Protocol: graphql-ws' \\
          -H 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits' --insecure"""
        firefox = f"""curl '{url}' --compressed -H 'User-Agent: Mozilla/5.0 Firefox/144.0' -H 'Accept: */*' \\
          -H 'Accept-Encoding: gzip, deflate, br, zstd' -H 'Sec-WebSocket-Version: 13' -H 'Origin: http://app.example' \\
          -H 'Sec-WebSocket-Protocol: graphql-ws' -H 'Sec-WebSocket-Extensions: permessage-deflate' \\
          -H 'Sec-WebSocket-Key: hqvB7ZVmqdYXHTm3mPdZmg==' -H 'Connection: keep-alive, Upgrade' -H 'Cookie: session=s3cret' \\
          -H 'Pragma: no-cache' -H 'Upgrade: websocket'"""
        for line in (chrome, firefox):
            shell = subprocess.run(["bash", "-c", f'"$TAUT_BIN" connect -1 {line} </dev/null'], capture_output=True,
                                   env=harness.environment(self.home, TAUT_BIN=harness.TAUT), timeout=harness.PATIENCE)
            out = shell.stdout.decode()
            self.assertEqual(shell.returncode, 0, shell.stderr)
            for part in ["Origin: http://app.example\n", "Cookie: session=s3cret\n", "User-Agent: Mozilla/5.0",
                         "Sec-WebSocket-Protocol: graphql-ws\n", "Sec-WebSocket-Extensions: permessage-deflate"]:
                self.assertIn(part, out)
            for name in ["Host", "Upgrade", "Connection", "Sec-WebSocket-Key"]:
                self.assertEqual(out.count(f"{name}: "), 1, out)

    def test_a_unix_socket(self):
        path = f"{self.home}/socket"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        self.addCleanup(listener.close)
        process = harness.start(self.home, "connect", "--unix", path, "ws://localhost/x")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        connection, _ = listener.accept()
        self.addCleanup(connection.close)
        self.assertIn(b"GET /x HTTP/1.1", connection.recv(4096))

    def test_through_nginx(self):
        node = harness.node_echo()
        self.addCleanup(node.stop)
        port = harness.free_port()
        settings = self.home / "nginx.conf"
        temporary = "\n".join(f"{kind}_temp_path {self.home}/{kind};" for kind in
                              ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        settings.write_text(f"""
          daemon off; worker_processes 1; pid {self.home}/nginx.pid; error_log stderr;
          events {{ worker_connections 64; }}
          http {{ access_log off; {temporary}
            server {{ listen 127.0.0.1:{port};
              location / {{ proxy_pass http://127.0.0.1:{node.port}; proxy_http_version 1.1; proxy_set_header Host $http_host;
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }} }} }}""")
        nginx = subprocess.Popen(["nginx", "-e", "stderr", "-c", settings], stderr=subprocess.DEVNULL)
        self.addCleanup(nginx.wait)
        self.addCleanup(nginx.terminate)
        harness.listens(port)
        text = "all work and no play " * 100
        code, out, err = run(self.home, "connect", "-v", "--deflate", f"ws://127.0.0.1:{port}/", text=text + "\n")
        self.assertEqual((code, out.decode()), (0, text + "\n"), err)
        self.assertRegex(err, r"→ 2,100 bytes, \d\d bytes on the connection \(\d %\)")
        self.assertRegex(err, r"← 2,100 bytes, \d\d bytes on the connection \(\d %\)")
        self.assertIn("connected to ws://127.0.0.1:" + str(port) + "/ (permessage-deflate)", err)
