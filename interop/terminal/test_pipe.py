"""In pipes: a filter, for bytes as well, with events for scripts, and nothing but messages on stdout."""

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import unittest

import harness
from harness import Flood, Home, RawServer, Server, run
from websockets.exceptions import ConnectionClosed


ESTABLISHED = '{"event":"pusher:connection_established","data":{"socket_id":"1.2","activity_timeout":120}}'


def app(server):
    """A Pusher app of a server, as arguments."""
    return ["--app", "1:key:secret", "--host", "127.0.0.1", "--port", str(server.port)]


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
        self.assertEqual(self.code_without_a_reader(), 0)

    def test_a_reader_that_leaves_does_not_meet_what_is_expected(self):
        self.assertEqual(self.code_without_a_reader("--expect", "never"), 11)

    def code_without_a_reader(self, *options):
        """The exit code, if the reader leaves after the first of two messages."""
        process = harness.start(self.home, "connect", *options, self.url)
        self.addCleanup(process.kill)
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"one\n")
        process.stdout.close()
        process.stdin.write(b"two\n")
        process.stdin.flush()
        code = process.wait(harness.PATIENCE)
        process.stdin.close()
        process.stderr.close()
        return code

    def test_a_reader_that_stops_stops_the_server_and_not_the_memory(self):
        server = Flood()
        self.addCleanup(server.stop)
        process = harness.start(self.home, "connect", "-n", f"ws://127.0.0.1:{server.port}")
        self.addCleanup(process.kill)
        os.read(process.stdout.fileno(), 1)
        server.halts(process)
        self.assertLess(server.sent, 1000)
        self.assertLess(harness.memory(process), 60 << 20)
        # It reads on, and gets all.
        total = 1
        while total < 2000 * 100_001:
            data = os.read(process.stdout.fileno(), 1 << 20)
            self.assertTrue(data)
            total += len(data)
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        self.assertEqual(server.sent, 2000)
        process.communicate()

    def ends_while_nobody_reads(self, server, *arguments, number=None):
        """Ends the command by one signal or by its own deadline: exit code, close codes that the server saw, and stderr."""
        process = harness.start(self.home, *arguments)
        self.addCleanup(process.kill)
        os.read(process.stdout.fileno(), 1)
        if number:
            server.halts(process)
            process.send_signal(number)
        code, err = process.wait(harness.PATIENCE), process.stderr.read().decode()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        server.stop()
        return code, server.codes, err

    def test_it_can_be_ended_while_nobody_reads(self):
        for options, number, ended in [
            ([], signal.SIGTERM, (143, [1001])),
            (["--json"], signal.SIGINT, (130, [1000])),
            (["--json", "--expect", "never", "--timeout", "2s"], None, (124, [1000])),
        ]:
            with self.subTest(options=options):
                server = Flood()
                arguments = ["connect", "-n", *options, f"ws://127.0.0.1:{server.port}"]
                code, codes, err = self.ends_while_nobody_reads(server, *arguments, number=number)
                self.assertEqual((code, codes), ended)
                self.assertEqual("--timeout has passed" in err, code == 124)

    def test_a_deadline_passes_while_the_rest_is_printed(self):
        server = Flood(count=3)
        self.addCleanup(server.stop)
        process = harness.start(self.home, "connect", "-n", "--timeout", "1s", f"ws://127.0.0.1:{server.port}")
        self.addCleanup(process.kill)
        self.assertEqual(process.wait(harness.PATIENCE), 124)
        self.assertTrue(process.communicate()[1].endswith(b"--timeout has passed\n"))

    def test_a_subscriber_can_be_ended_while_nobody_reads(self):
        event = json.dumps({"event": "e", "channel": "news", "data": "x" * 100_000})
        for options, number, ended in [([], signal.SIGTERM, 143), (["--timeout", "2s"], None, 124)]:
            with self.subTest(options=options):
                server = Flood(first=[ESTABLISHED], message=event)
                arguments = ["subscribe", "news", *app(server), *options]
                code, _, err = self.ends_while_nobody_reads(server, *arguments, number=number)
                self.assertEqual(code, ended)
                self.assertEqual("taut: --timeout has passed" in err, code == 124)

    def test_more_subscriptions_than_fit_at_once_are_all_sent(self):
        names = [f"private-{number:0150}" for number in range(6000)]
        subscribed = set()

        def count(connection):
            connection.send(ESTABLISHED)
            # Meanwhile all are signed, and fill what is between us.
            threading.Event().wait(0.5)
            for message in connection:
                subscribed.add(json.loads(message)["data"]["channel"])
                if len(subscribed) == len(names):
                    connection.close(4001)

        server = Server(count)
        self.addCleanup(server.stop)
        server.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        code, _, err = run(self.home, "subscribe", *names, *app(server))
        self.assertEqual((code, len(subscribed)), (5, len(names)), err)

    def test_once_prints_the_first_message_and_sends_the_whole_input(self):
        received, ended = [], threading.Event()

        def greet(connection):
            connection.send("welcome")
            for message in connection:
                received.append(message)
                # The client may have closed the connection since.
                with contextlib.suppress(ConnectionClosed):
                    connection.send(message)
            ended.set()

        server = Server(greet)
        self.addCleanup(server.stop)
        url = f"ws://127.0.0.1:{server.port}"
        self.assertEqual(run(self.home, "connect", "-1", url, text="one\ntwo\n")[:2], (0, b"welcome\n"))
        self.assertTrue(ended.wait(harness.PATIENCE))
        self.assertEqual(received, ["one", "two"])
        # An input that does not end does not hold it up.
        process = harness.start(self.home, "connect", "-1", url)
        self.addCleanup(process.kill)
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        self.assertEqual(process.communicate()[0], b"welcome\n")

    def test_what_comes_after_our_close_is_printed_while_the_peer_is_not_silent(self):
        def go_on(connection):
            while b"\x88" not in connection.recv(1 << 16):
                pass
            # Longer than the library's own limit.
            for _ in range(8):
                connection.sendall(b"\x81\x05still")
                threading.Event().wait(0.7)
            connection.sendall(b"\x88\x02\x03\xe8")
            connection.close()

        server = RawServer(go_on)
        self.addCleanup(server.stop)
        code, out, err = run(self.home, "connect", "--close-timeout", "3s", f"ws://127.0.0.1:{server.port}")
        self.assertEqual((code, out), (0, b"still\n" * 8), err)

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

    def test_it_ends_when_the_connection_is_lost_after_the_end_of_the_input(self):
        connections = []

        def lose_the_first(connection):
            connections.append(connection)
            connection.recv(1 << 16)
            if len(connections) == 1:
                connection.close()
                return
            connection.sendall(b"\x88\x02\x03\xe8")
            connection.close()

        server = RawServer(lose_the_first)
        self.addCleanup(server.stop)
        # More than the kernel keeps: the connection is lost while it is written.
        code, _, err = run(self.home, "connect", "--reconnect", f"ws://127.0.0.1:{server.port}", text="x" * (20 << 20) + "\n")
        self.assertEqual((code, len(connections)), (0, 2), err)

    def test_a_deadline_is_told_while_there_is_no_connection(self):
        url = f"ws://127.0.0.1:{harness.free_port()}"
        code, _, err = run(self.home, "connect", "--reconnect", "--timeout", "300ms", url)
        self.assertEqual((code, err.splitlines()[-1]), (124, "--timeout has passed"))

    def test_what_cannot_help_is_not_tried_again(self):
        server = Server(harness.behave)
        self.addCleanup(server.stop)
        self.assertEqual(run(self.home, "connect", "--reconnect", f"ws://127.0.0.1:{server.port}/status/404")[0], 5)
        self.assertEqual(run(self.home, "connect", "--reconnect", "-n", f"ws://127.0.0.1:{server.port}/close/1009")[0], 7)
