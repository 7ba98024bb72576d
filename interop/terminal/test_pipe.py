"""In pipes: a filter, for bytes as well, with events for scripts, and nothing but messages on stdout."""

import json
import os
import signal
import struct
import threading
import unittest

import harness
from harness import Home, Server, run


class Pipes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.echo = harness.echo("--deflate")
        cls.addClassCleanup(cls.echo.stop)
        cls.url = f"ws://127.0.0.1:{cls.echo.port}"

    def setUp(self):
        self.home = Home(self).path

    def test_lines_are_messages_and_nothing_is_lost_at_the_end(self):
        text = "".join(f"line {number} {'x' * (number % 500)}\n" for number in range(20_000)) + "\nwithout an end"
        code, out, err = run(self.home, "connect", self.url, text=text)
        self.assertEqual((code, err), (0, "closed: 1000 (normal closure)\n"))
        self.assertEqual(out.decode(), text + "\n")

    def test_large_lines(self):
        text = "y" * (5 << 20) + "\n"
        self.assertEqual(run(self.home, "connect", "--deflate", self.url, text=text)[:2], (0, text.encode()))
        code, _, err = run(self.home, "connect", "--max-size", "1K", self.url, text="first\n" + "z" * 2000 + "\n")
        self.assertEqual(code, 1)
        self.assertIn("message 2 of the input: it has more than 1024 bytes", err)

    def test_binary_forms_round_trip(self):
        payload = bytes(range(256)) * 300
        length = lambda *parts: b"".join(struct.pack(">I", len(part)) + part for part in parts)
        for form, data in [
            ("raw", payload),
            ("hex", payload.hex().encode() + b"\n\nff\n"),
            ("base64", b"3q2+7w==\nAA==\n"),
            ("length", length(payload, b"", b"\n")),
        ]:
            with self.subTest(form=form):
                code, out, err = run(self.home, "connect", "--binary", form, self.url, data=data)
                self.assertEqual((code, out), (0, data), err)
        for form, data, words in [
            ("hex", b"00\nxyz\n", "message 2 of the input: this is not hexadecimal"),
            ("length", b"\0\0\0\x09abc", "announces 9 bytes, and the input ends after 3"),
        ]:
            code, _, err = run(self.home, "connect", "--binary", form, self.url, data=data)
            self.assertEqual(code, 1)
            self.assertIn(words, err)
        code, out, err = run(self.home, "connect", self.url, data=b"good\n\xff\xfe\n")
        self.assertEqual((code, out), (1, b"good\n"))
        self.assertIn("message 2 of the input: it is not UTF-8", err)

    def test_events_as_json(self):
        server = Server(harness.behave)
        self.addCleanup(server.stop)
        text = "please: ping\nline\nplease: close 4001 enough\n"
        code, out, err = run(self.home, "connect", "--json", "-n", f"ws://127.0.0.1:{server.port}", text=text)
        self.assertEqual((code, err), (8, ""))
        events = [json.loads(line) for line in out.decode().splitlines()]
        self.assertEqual([event["event"] for event in events], ["open", "ping", "message", "message", "close"])
        self.assertEqual(events[1]["payload"], "of the server")
        self.assertEqual(events[3]["text"], "line")
        self.assertEqual((events[4]["code"], events[4]["reason"], events[4]["by"]), (4001, "enough", "peer"))

    def test_looks(self):
        self.assertEqual(run(self.home, "connect", "--pretty", self.url, text='{"b":1.50,"a":[]}\n')[1],
                         b'{\n  "b": 1.50,\n  "a": []\n}\n')
        self.assertRegex(run(self.home, "connect", "-t", self.url, text="x\n")[1], rb"^\d{4}-\d\d-\d\dT[\d:.]+Z x\n$")
        # Escape sequences reach a pipe as they are.
        self.assertEqual(run(self.home, "connect", self.url, text="\x1b[31m\n")[1], b"\x1b[31m\n")
        self.assertIn("\x1b[", run(self.home, "connect", "--color", "always", self.url, text="x\n")[2])
        self.assertNotIn("\x1b", run(self.home, "connect", "-v", self.url, text="x\n")[2])

    def test_a_reader_that_has_enough_ends_it_well(self):
        process = harness.start(self.home, "connect", self.url)
        self.addCleanup(process.kill)
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"one\n")
        process.stdout.close()
        process.stdin.write(b"two\n")
        process.stdin.close()
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        process.stderr.close()

    def test_a_reader_that_stops_stops_the_server_and_not_the_memory(self):
        sent = []

        def flood(connection):
            message = "x" * 100_000
            for number in range(2000):
                connection.send(message)
                sent.append(number)

        server = Server(flood)
        process = harness.start(self.home, "connect", "-n", f"ws://127.0.0.1:{server.port}")
        self.addCleanup(process.kill)
        # The server comes to a halt once all buffers are full.
        settled, count = threading.Event(), -1
        while count != len(sent) or not sent:
            count = len(sent)
            settled.wait(0.5)
        self.assertLess(len(sent), 1000)
        self.assertLess(harness.memory(process), 60 << 20)
        # It reads on, and gets all.
        total = 0
        while total < 2000 * 100_001:
            data = os.read(process.stdout.fileno(), 1 << 20)
            self.assertTrue(data)
            total += len(data)
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        self.assertEqual(len(sent), 2000)
        process.communicate()
        server.stop()

    def test_it_can_be_ended_while_nobody_reads(self):
        server = Server(lambda connection: [connection.send("x" * 100_000) for _ in range(1000)])
        process = harness.start(self.home, "connect", "-n", f"ws://127.0.0.1:{server.port}")
        self.addCleanup(process.kill)
        os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        # A second one at the latest ends it at once: repeated, since two that come together count as one.
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            threading.Event().wait(0.05)
        self.assertEqual(process.returncode, 143)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()

    def test_it_connects_again_and_keeps_what_was_not_sent(self):
        node = harness.echo()
        process = harness.start(self.home, "connect", "--reconnect", f"ws://127.0.0.1:{node.port}")
        self.addCleanup(process.kill)
        process.stdin.write(b"before\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"before\n")
        node.stop()
        told = process.stderr.readline().decode()
        self.assertRegex(told, r"connection lost \(1006\)(: .*)?; again in \d\.\d s \(2nd try\)")
        process.stdin.write(b"while it was away\n")
        process.stdin.flush()
        again = harness.echo(port=node.port)
        self.addCleanup(again.stop)
        self.assertEqual(process.stdout.readline(), b"while it was away\n")
        out, _ = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual((process.returncode, out), (0, b""))

    def test_what_cannot_help_is_not_tried_again(self):
        server = Server(harness.behave)
        self.addCleanup(server.stop)
        self.assertEqual(run(self.home, "connect", "--reconnect", f"ws://127.0.0.1:{server.port}/status/404")[0], 5)
        self.assertEqual(run(self.home, "connect", "--reconnect", "-n", f"ws://127.0.0.1:{server.port}/close/1009")[0], 7)
