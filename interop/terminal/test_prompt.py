"""At a terminal: the prompt, its history and commands, and what a message can do to the screen."""

import json
import re
import signal
import stat
import unittest

import pexpect

import harness
from harness import Home, Server, Terminal, run


class Prompt(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(harness.behave, max_size=None)
        cls.addClassCleanup(cls.server.stop)
        cls.url = f"ws://127.0.0.1:{cls.server.port}"

    def setUp(self):
        self.home = Home(self).path

    def open(self, *arguments, url=None, **variables):
        terminal = Terminal(self.home, "connect", *arguments, url or self.url, **variables)
        self.addCleanup(terminal.__exit__)
        terminal.shows("connected to")
        return terminal

    def test_what_is_typed_is_sent_and_what_comes_is_printed_above(self):
        terminal = self.open()
        terminal.enter("hello")
        terminal.shows("→ hello\n← hello\n")
        terminal.enter("/quit")
        terminal.shows("closed: 1000 (normal closure)")
        self.assertEqual(terminal.end(), 0)

    def test_a_message_does_not_destroy_what_is_being_typed(self):
        connections = []
        server = Server(lambda connection: connections.append(connection) or [None for _ in connection])
        self.addCleanup(server.stop)
        terminal = self.open(url=f"ws://127.0.0.1:{server.port}")
        terminal.type("half a line")
        terminal.shows("→ half a line")
        connections[0].send("in between")
        text = terminal.shows("← in between")
        self.assertRegex(terminal.shows(lambda text: text.rstrip().endswith("→ half a line")), r"← in between\n→ half a line")
        terminal.enter(" and its end")
        terminal.shows("→ half a line and its end")
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0, text)

    def test_history_survives_restarts_and_is_private(self):
        terminal = self.open()
        for line in ["first line", " kept out", "second line"]:
            terminal.enter(line)
            terminal.shows(f"← {line}")
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0)
        file = self.home / "state/taut/connect-history"
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertNotIn("kept out", file.read_text())
        terminal = self.open()
        terminal.type("\x1b[A")
        terminal.shows(lambda text: text.rstrip().endswith("→ second line"))
        # Ctrl-U, then Ctrl-R.
        terminal.type("\x15\x12fir")
        terminal.shows("first line")
        terminal.enter()
        terminal.shows("← first line")
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0)
        terminal = self.open("--no-history")
        terminal.enter("unwritten")
        terminal.shows("← unwritten")
        terminal.type("\x04")
        terminal.end()
        self.assertNotIn("unwritten", file.read_text())

    def test_pasted_lines_are_one_message(self):
        terminal = self.open()
        terminal.paste('{\n  "two": "lines"\n}')
        terminal.shows('"two"')
        terminal.enter()
        terminal.shows('← {\n    "two": "lines"\n  }\n')
        terminal.enter("/quit")
        self.assertEqual(terminal.end(), 0)

    def test_a_line_of_100_kb_is_not_cut(self):
        lengths = []

        def count(connection):
            for message in connection:
                lengths.append(len(message))
                connection.send(f"{len(message)} characters")

        server = Server(count, max_size=None)
        self.addCleanup(server.stop)
        terminal = self.open(url=f"ws://127.0.0.1:{server.port}")
        terminal.paste("x" * 100_000)
        terminal.enter()
        terminal.shows("← 100000 characters")
        self.assertEqual(lengths, [100_000])

    def test_commands(self):
        terminal = self.open()
        terminal.enter("/help")
        terminal.shows("/send-file PATH")
        terminal.enter("/ping are you there?")
        terminal.shows(lambda text: re.search(r"← pong are you there\? after [\d.]+ ms", text))
        terminal.enter("//path")
        terminal.shows("← /path")
        terminal.enter("/binary 00 ff 41")
        terminal.shows("← binary, 3 bytes\n  0000  00 ff 41")
        file = self.home / "message.txt"
        file.write_text("from a file")
        terminal.type(f"/send-file {self.home}/mess\t")
        terminal.shows("message.txt")
        terminal.enter()
        terminal.shows("← from a file")
        (self.home / "with a space").write_text("from another file")
        terminal.type(f"/send-file {self.home}/with\t")
        terminal.shows("with\\ a\\ space")
        terminal.enter()
        terminal.shows("← from another file")
        terminal.enter("/json")
        terminal.shows("JSON is indented")
        terminal.enter('{"a":1.50,"b":[]}')
        terminal.shows('← {\n    "a": 1.50,\n    "b": []\n  }')
        terminal.enter("/unknown")
        terminal.shows("there is no command /unknown")
        terminal.type("/clo\t")
        terminal.shows("/close ")
        terminal.enter("4001 done")
        terminal.shows("closed: 4001 (application code): done")
        self.assertEqual(terminal.end(), 0)

    def test_the_terminal_is_as_it_was_when_the_peer_closes(self):
        terminal = self.open()
        terminal.enter("please: close 1011 a reason")
        terminal.shows("closed by the peer: 1011 (server error): a reason")
        self.assertEqual(terminal.end(), 8)
        self.assertTrue(terminal.raw.rstrip().endswith(b"\x1b[?2004l\r\x1b[K"), terminal.raw[-80:])

    def test_ctrl_c_twice_ends_it(self):
        terminal = self.open()
        terminal.type("half\x03")
        terminal.shows("Ctrl-C again")
        terminal.type("\x03")
        self.assertEqual(terminal.end(), 130)

    def test_it_can_be_left_while_there_is_no_connection(self):
        terminal = Terminal(self.home, "connect", "--reconnect", f"ws://127.0.0.1:{harness.free_port()}")
        self.addCleanup(terminal.__exit__)
        terminal.shows("again in")
        terminal.enter("/ping")
        terminal.shows("there is no connection now; nothing was sent")
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0)

    def test_it_says_what_was_never_sent(self):
        terminal = Terminal(self.home, "connect", "--reconnect", f"ws://127.0.0.1:{harness.free_port()}")
        self.addCleanup(terminal.__exit__)
        terminal.shows("again in")
        terminal.enter("one")
        terminal.enter("two")
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 9)
        self.assertIn("2 messages were not sent", terminal.text())

    def test_messages_come_above_a_line_of_several_rows(self):
        connections = []
        server = Server(lambda connection: connections.append(connection) or [None for _ in connection])
        self.addCleanup(server.stop)
        terminal = self.open(url=f"ws://127.0.0.1:{server.port}")
        line = "".join(f"word{number} " for number in range(40)).strip()
        terminal.type(line)
        terminal.shows("word39")
        # The cursor goes to the first row.
        terminal.type("\x01")
        for number in range(50):
            connections[0].send(f"message {number}")
        terminal.shows("← message 49")
        # What was typed is there once, whole, and below all messages.
        text = terminal.shows(lambda text: "word39" in text).rstrip()
        self.assertEqual(text.split("← message 49\n→ ")[1].replace("\n", ""), line)
        self.assertEqual((text.count("word7 "), text.count("← message")), (1, 50))
        terminal.enter("first ")
        terminal.shows("→ first word0")

    def test_a_message_cannot_attack_the_terminal(self):
        server = Server(lambda connection: connection.send("\x1b]0;owned\x07\x1b[2J\x9b31m\u202ereversed\r!") or [None for _ in connection])
        self.addCleanup(server.stop)
        terminal = self.open(url=f"ws://127.0.0.1:{server.port}")
        terminal.shows("← \\e]0;owned\\u{7}\\e[2J\\u{9b}31m\\u{202e}reversed\\r!")
        self.assertNotIn(b"\x1b]0;", terminal.raw)
        self.assertNotEqual(terminal.screen.title, "owned")

    def test_colors_and_arrows_only_where_they_are_wanted(self):
        colored = re.compile(rb"\x1b\[3\dm")
        terminal = self.open()
        terminal.enter("x")
        terminal.shows("← x")
        self.assertRegex(terminal.raw, colored)
        for arguments, variables in [([], {"NO_COLOR": "1"}), (["--color", "never"], {}), ([], {"TERM": "dumb"})]:
            terminal = self.open(*arguments, **variables)
            if variables.get("TERM") != "dumb":
                terminal.enter("x")
                terminal.shows("← x")
            self.assertNotRegex(terminal.raw, colored)
        terminal = self.open(LANG="C")
        terminal.enter("x")
        terminal.shows("> x\n< x")

    def test_stdout_may_be_a_pipe_while_somebody_types(self):
        child = self.in_bash(f'"{harness.TAUT}" connect {self.url} | while read -r line; do echo "got $line"; done')
        child.expect("→ ".encode())
        # More than a line of the terminal's own may have.
        child.send("\x1b[200~" + "z" * 6000 + "\x1b[201~\r")
        child.expect("got z{6000}\r")
        child.send("\x04")
        child.expect(pexpect.EOF)

    def in_bash(self, command):
        """A command of the shell at a terminal, with a prompt."""
        child = pexpect.spawn("bash", ["-c", command], env=harness.environment(self.home), timeout=harness.PATIENCE)
        self.addCleanup(child.close, force=True)
        return child

    def test_ctrl_c_ends_it_while_there_is_no_connection_and_stdout_is_a_pipe(self):
        url = f"ws://127.0.0.1:{harness.free_port()}"
        child = self.in_bash(f'"{harness.TAUT}" connect --reconnect {url} | cat; echo "code ${{PIPESTATUS[0]}}"')
        child.expect("again in")
        child.send("\x03")
        child.expect("Ctrl-C again")
        child.send("\x03")
        child.expect("code 130")

    def test_ctrl_c_ends_it_while_the_peer_does_not_read(self):
        server = harness.RawServer(lambda connection: connection.recv(1 << 16) and kept.append(connection))
        kept = []
        self.addCleanup(server.stop)
        large = self.home / "large"
        large.write_bytes(b"x" * (20 << 20))
        terminal = self.open("--ping-interval", "0", url=f"ws://127.0.0.1:{server.port}")
        for _ in range(2):
            terminal.enter(f"/send-file {large}")
        # Between two prompts it is a signal, at the prompt a key.
        for _ in range(4):
            terminal.type("\x03")
        self.assertEqual(terminal.end(), 130)

    def test_a_signal_ends_it_at_the_prompt(self):
        for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
            terminal = self.open()
            terminal.type("half a line")
            terminal.shows("→ half a line")
            terminal.child.kill(number)
            self.assertEqual(terminal.end(), code)

    def test_stderr_that_leads_elsewhere_holds_only_text(self):
        log = self.home / "log"
        child = self.in_bash(f'"{harness.TAUT}" connect --color never {self.url} 2>"{log}"; echo "code $?"')
        child.expect("→ ".encode())
        child.send("hi\r")
        child.expect("← hi".encode())
        child.send("/json\r")
        child.expect("JSON is indented\r\n→ ".encode())
        child.send("\x04")
        child.expect("code 0")
        self.assertNotIn("\x1b", log.read_text())


class Pictures(unittest.TestCase):
    """What the screen looks like; pictures of it if TAUT_SCREENSHOTS says where to."""

    def setUp(self):
        self.home = Home(self).path

    def test_a_stream_of_json_and_a_reconnect(self):
        echo = harness.echo()
        self.addCleanup(echo.stop)
        url = f"ws://127.0.0.1:{echo.port}"
        with Terminal(self.home, "connect", "--pretty", "-t", "--reconnect", url, rows=34) as terminal:
            terminal.shows("connected to")
            for price in (41.5, 42):
                terminal.enter(json.dumps({"channel": "prices", "data": {"symbol": "TAUT", "price": price, "open": True}}))
                terminal.shows(f'"price": {price}')
            terminal.enter("/ping")
            terminal.shows("← pong after")
            terminal.enter("/binary 54 61 75 74 00 ff")
            terminal.shows("|Taut..|")
            terminal.picture("connect-json")
            echo.stop()
            terminal.shows("2nd try")
            terminal.enter("typed while it was away")
            again = harness.echo(port=echo.port)
            self.addCleanup(again.stop)
            terminal.shows(lambda text: text.count("connected to") == 2)
            terminal.shows("← typed while it was away")
            terminal.picture("connect-reconnect")
            terminal.type("\x04")
            self.assertEqual(terminal.end(), 0)

    def test_verbose(self):
        pair = harness.certificate(self.home)
        server = Server(harness.behave, tls=pair, subprotocols=["json"])
        self.addCleanup(server.stop)
        arguments = ["-v", "-k", "--deflate", "--bearer", "s3cret", "-s", "json", f"wss://localhost:{server.port}/feed"]
        with Terminal(self.home, "connect", *arguments, rows=40, columns=120) as terminal:
            terminal.shows("connected to")
            terminal.enter("all work and no play makes Jack a dull boy, " * 2)
            terminal.shows("on the connection")
            terminal.enter("/quit")
            self.assertEqual(terminal.end(), 0)
            self.assertIn("Authorization: Bearer …", terminal.text())
            terminal.picture("connect-verbose")

    def test_help(self):
        with Terminal(self.home, "connect", "--help", rows=130, columns=110) as terminal:
            self.assertEqual(terminal.end(), 0)
            for heading in ["Messages:", "Output:", "Handshake:", "Network:", "TLS:", "Examples:", "Exit codes:"]:
                self.assertIn(f"\n{heading}\n", terminal.text())
            terminal.picture("connect-help")


class Help(unittest.TestCase):
    def test_the_help_and_the_page_name_the_same_options(self):
        home = Home(self).path
        page = run(home, "docs", "terminal")[1].decode()
        for command, count in [("connect", 25), ("subscribe", 25), ("publish", 10), ("channels", 8), ("sign", 10)]:
            with self.subTest(command=command):
                help = run(home, command, "--help")[1].decode().split("Examples:")[0]
                options = set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]+)", help, re.MULTILINE)) - {"--help"}
                self.assertGreater(len(options), count)
                named = set(re.findall(r"--[a-z][a-z-]+", page))
                self.assertEqual(sorted(options - named), [])
