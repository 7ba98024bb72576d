"""The commands for Pusher apps, against `taut serve` and with Pusher's own library for Python."""

import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

from websockets.sync.client import connect

from harness import PATIENCE, TAUT, Program, Terminal, environment, run, start

APP = "42:my-key:my-secret"
COUNTING = """
[[apps]]
id = "42"
key = "my-key"
secret = "my-secret"
subscription-count = true
"""
MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
LIBRARY = f"{os.environ['TAUT_CACHE']}/sdk-python/bin/python"


def serve(*arguments, port=0):
    return Program([TAUT, "serve", "--listen", f"127.0.0.1:{port}", "--log-level", "error", *arguments])


class Subscriber:
    """`taut subscribe` in pipes, line by line."""

    def __init__(self, home, url, *arguments, **variables):
        variables |= {"TAUT_APP_URL": url} if url else {}
        self.process = start(home, "subscribe", *arguments, stdin=subprocess.DEVNULL, **variables)
        self.told, self.printed, self.seen = queue.Queue(), queue.Queue(), []
        for stream, lines in [(self.process.stderr, self.told), (self.process.stdout, self.printed)]:
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.put(line.decode().rstrip("\n"))
        stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def tells(self, wanted):
        """Waits until stderr has had a line with this text; channels are confirmed in any order."""
        while not any(wanted in line for line in self.seen):
            try:
                self.seen.append(self.told.get(timeout=PATIENCE))
            except queue.Empty:
                raise AssertionError(f"{wanted!r} is not among {self.seen}") from None

    def line(self):
        return self.printed.get(timeout=PATIENCE)

    def event(self):
        return json.loads(self.line())

    def end(self):
        return self.process.wait(PATIENCE)


def bash(line):
    return subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.home = pathlib.Path(cls.folder.name)
        cls.addClassCleanup(cls.folder.cleanup)

    def taut(self, *arguments, code=0, **options):
        """Runs the command, which has to end with this code: stdout and stderr."""
        ended, out, err = run(self.home, *arguments, **options)
        self.assertEqual(ended, code, f"{arguments}: {out.decode()} {err}")
        return out.decode(), err


class WithServer(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.home / "taut.toml").write_text(COUNTING)
        cls.server = serve("--config", f"{cls.home}/taut.toml")
        cls.addClassCleanup(cls.server.stop)
        cls.url = f"pusher://my-key:my-secret@127.0.0.1:{cls.server.port}/42"

    def subscriber(self, *arguments, **variables):
        return Subscriber(self.home, self.url, *arguments, **variables)

    def publish(self, *arguments, **options):
        return self.taut("publish", *arguments, TAUT_APP_URL=self.url, **options)[0]

    def library(self, source, **settings):
        """Runs a line of Python with Pusher's library and a client of the app."""
        options = {"app_id": "42", "key": "my-key", "secret": "my-secret", "host": "127.0.0.1", "port": self.server.port}
        options |= {"ssl": False, **settings}
        program = f"import json, pusher\nclient = pusher.Pusher(**{options!r})\n{source}"
        return subprocess.run([LIBRARY, "-c", program], check=True, capture_output=True, timeout=PATIENCE, text=True).stdout


class Events(WithServer):
    def test_what_is_published_is_printed_on_a_line(self):
        with self.subscriber("news", "sports") as lines, self.subscriber("news", "--json", "--count", "2") as objects:
            for told in [lines, objects]:
                told.tells("subscribed to news")
            lines.tells("subscribed to sports")
            self.assertEqual(self.publish("news", "headline", '{"title": "It works"}'), "published headline to news\n")
            self.assertRegex(lines.line(), r'^\d\d:\d\d:\d\d\.\d{3}Z  news  headline  \{"title":"It works"\}$')
            event = objects.event()
            self.assertRegex(event.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertEqual(event, {"channel": "news", "event": "headline", "data": {"title": "It works"}})
            self.publish("sports", "-c", "news", "goal", "hello", "--text")
            self.assertEqual(objects.event()["data"], "hello")
            self.assertEqual(objects.end(), 0)
            self.assertEqual({lines.line().split("  ")[1] for _ in range(2)}, {"news", "sports"})

    def test_pushers_library_publishes_to_it(self):
        with self.subscriber("news", "--json") as subscriber:
            subscriber.tells("subscribed")
            self.library("client.trigger('news', 'App\\\\Events\\\\X', {'n': 1.50, 'text': 'é'})")
            event = subscriber.event()
            self.assertEqual((event["event"], event["data"]), ("App\\Events\\X", {"n": 1.5, "text": "é"}))

    def test_data_comes_from_a_file_from_a_pipe_and_in_batches(self):
        story = self.home / "story.json"
        story.write_text('{"from": "a file"}')
        with self.subscriber("news", "--raw") as subscriber:
            subscriber.tells("subscribed")
            self.publish("news", "e", f"@{story}")
            self.publish("news", "e", "-", "--text", text="a pipe")
            batch = "".join(json.dumps({"channel": "news", "name": "e", "data": {"n": n}}) + "\n" for n in range(23))
            self.assertEqual(self.publish("--batch", "-", text=batch), "published 23 events\n")
            self.assertEqual([subscriber.line() for _ in range(2)], ['{"from": "a file"}', "a pipe"])
            self.assertEqual([json.loads(subscriber.line())["n"] for _ in range(23)], list(range(23)))
            exact = '{"b":1.50,"a":12345678901234567890123}'
            line = '{"channel":"news","name":"e","data":' + exact + "}"
            self.assertEqual(self.publish("--batch", "-", text=line), "published 1 event\n")
            self.assertEqual(subscriber.line(), exact)
        _, err = self.taut("publish", "news", "e", "hello", code=64, TAUT_APP_URL=self.url)
        self.assertIn("the data is not JSON", err)
        self.assertIn("line 2: ", self.taut("publish", "--batch", "-", text='{"channel":"a","name":"b"}\n{', code=64)[1])

    def test_a_publish_counts_users_and_subscriptions(self):
        with self.subscriber("presence-count", "counted", "--user-id", "7", "--json") as subscriber:
            subscriber.tells("subscribed to counted")
            out = self.publish("counted", "-c", "presence-count", "e", "--info")
            self.assertIn("  counted: 1 subscription\n", out)
            self.assertIn("  presence-count: 1 user, 1 subscription\n", out)
            answer = json.loads(self.publish("counted", "e", "--info", "--json"))
            self.assertEqual(answer["channels"]["counted"]["subscription_count"], 1)
        self.taut("publish", "news", "e", "--socket-id", "7", code=64)

    def test_events_are_chosen_counted_and_waited_for(self):
        with self.subscriber("news", "--bind", "b", "--once", "--raw") as subscriber:
            subscriber.tells("subscribed")
            self.publish("news", "a", "1")
            self.publish("news", "b", "2")
            self.assertEqual((subscriber.line(), subscriber.end()), ("2", 0))
        self.taut("subscribe", "news", "--timeout", "200ms", code=124, TAUT_APP_URL=self.url)
        with self.subscriber("news") as subscriber:
            subscriber.tells("subscribed")
            subscriber.process.send_signal(signal.SIGINT)
            self.assertEqual(subscriber.end(), 130)

    def test_a_reader_that_has_enough_ends_it(self):
        """`taut subscribe … | head -1`: it ends with the next event after that, and well."""
        script = f'"{TAUT}" subscribe news --raw | head -1; echo "code ${{PIPESTATUS[0]}}"'
        variables = environment(self.home, TAUT_APP_URL=self.url)
        process = subprocess.Popen(
            ["bash", "-c", script], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.assertIn("subscribed", process.stderr.readline())
        while process.poll() is None:
            self.publish("news", "e", '"x"')
        self.assertEqual(process.stdout.read().splitlines(), ['"x"', "code 0"])
        self.assertEqual(process.stderr.read(), "")
        process.stdout.close()
        process.stderr.close()

    def test_a_cache_channel_says_that_it_has_nothing_and_then_what_it_has(self):
        with self.subscriber("cache-prices", "--json") as subscriber:
            self.assertEqual(subscriber.event()["event"], "pusher:cache_miss")
            self.publish("cache-prices", "e", "7")
            self.assertEqual(subscriber.event()["data"], 7)
        with self.subscriber("cache-prices", "--json", "--once") as subscriber:
            self.assertEqual(subscriber.event()["data"], 7)
            self.assertEqual(subscriber.end(), 0)
        self.assertRegex(self.taut("channels", "cache-prices", TAUT_APP_URL=self.url)[0], r"last event     7  \(kept for")

    def test_a_terminal_shows_colors_and_obeys_no_stranger(self):
        with Terminal(self.home, "subscribe", "news", TAUT_APP_URL=self.url) as terminal:
            terminal.shows("subscribed to news")
            self.publish("news", "evil\x1b]0;title\x07", "\x1b[2Jcleared", "--text")
            terminal.shows("\\e[2Jcleared")
            self.assertNotIn(b"\x1b[2J", terminal.raw)
            self.assertNotIn(b"\x1b]0;", terminal.raw)
            self.assertIn(b"\x1b[36mnews\x1b[0m", terminal.raw)
            self.publish("news", "long", json.dumps({"list": ["x" * 30] * 5}))
            terminal.shows('    "list": [')


class Members(WithServer):
    def test_presence_channels_show_who_comes_and_goes(self):
        arguments = ["presence-room", "--json", "--user-info", '{"name":"Ada"}']
        with self.subscriber(*arguments, "--user-id", "1") as first:
            first.tells("subscribed to presence-room, users: 1 (1)")
            with self.subscriber(*arguments, "--user-id", "2") as second:
                second.tells("users: 2 (")
                added = first.event()
                self.assertEqual(added["event"], "pusher:member_added")
                self.assertEqual(added["data"], {"user_id": "2", "user_info": {"name": "Ada"}})
                out, _ = self.taut("channels", "presence-room", "--users", TAUT_APP_URL=self.url)
                self.assertEqual(sorted(out.split()), ["1", "2"])
            removed = first.event()
            self.assertEqual((removed["event"], removed["data"]), ("pusher:member_removed", {"user_id": "2"}))
        self.assertIn("--user-id", self.taut("subscribe", "presence-room", code=64, TAUT_APP_URL=self.url)[1])

    def test_a_client_event_shows_who_sent_it_and_a_publish_leaves_a_connection_out(self):
        """The other client is one by hand, which `taut sign` signs for as an endpoint would."""
        with self.subscriber("presence-chat", "--user-id", "1", "--json", "--bind", "client-typing") as subscriber:
            subscriber.tells("subscribed")
            with connect(f"ws://127.0.0.1:{self.server.port}/app/my-key?protocol=7") as socket:
                socket_id = json.loads(json.loads(socket.recv())["data"])["socket_id"]
                signed, _ = self.taut("sign", "presence-chat", socket_id, "--user-id", "2", "--json", TAUT_APP_URL=self.url)
                answer = json.loads(signed)["answer"]
                socket.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "presence-chat", **answer}}))
                self.assertIn("subscription_succeeded", socket.recv(PATIENCE))
                socket.send(json.dumps({"event": "client-typing", "channel": "presence-chat", "data": {"x": 1}}))
                event = subscriber.event()
                self.assertEqual((event["event"], event["data"], event["user_id"]), ("client-typing", {"x": 1}, "2"))
                self.publish("presence-chat", "for-the-others", "--socket-id", socket_id)
                self.publish("presence-chat", "for-all")
                self.assertEqual(json.loads(socket.recv(PATIENCE))["event"], "for-all")

    def test_encrypted_channels_are_read_with_the_key_as_pushers_library_writes_them(self):
        name = "private-encrypted-a"
        with self.subscriber(name, "--json", TAUT_ENCRYPTION_KEY=MASTER_KEY) as reader, self.subscriber(name, "--json") as other:
            reader.tells("subscribed")
            other.tells("subscribed")
            self.library(f"client.trigger('{name}', 'e', {{'n': 1}})", encryption_master_key_base64=MASTER_KEY)
            self.assertEqual(reader.event()["data"], {"n": 1})
            self.assertEqual(set(other.event()["data"]), {"nonce", "ciphertext"})
            self.publish(name, "e", "[2]", TAUT_ENCRYPTION_KEY=MASTER_KEY)
            self.assertEqual(reader.event()["data"], [2])
        self.assertIn("master key", self.taut("publish", name, "e", code=64, TAUT_APP_URL=self.url)[1])


class Channels(WithServer):
    def test_occupied_channels_are_a_table_on_a_terminal(self):
        with self.subscriber("news", "private-a", "presence-b", "--user-id", "7") as subscriber:
            subscriber.tells("subscribed to presence-b")
            with Terminal(self.home, "channels", TAUT_APP_URL=self.url) as terminal:
                self.assertEqual(terminal.end(), 0)
                rows = [line.split() for line in terminal.text().splitlines() if line]
            expected = [["news", "1", "-"], ["presence-b", "-", "1"], ["private-a", "1", "-"]]
            self.assertEqual(rows, [["CHANNEL", "SUBSCRIPTIONS", "USERS"], *expected])
            out, _ = self.taut("channels", "--prefix", "private-", "--json", TAUT_APP_URL=self.url)
            self.assertEqual(json.loads(out), {"channels": {"private-a": {"subscription_count": 1}}})
            out, _ = self.taut("channels", "presence-b", TAUT_APP_URL=self.url)
            self.assertEqual(out, "occupied       yes\nusers          1\n")
        out, _ = self.taut("channels", "nobody", "--json", TAUT_APP_URL=self.url)
        self.assertIs(json.loads(out)["occupied"], False)

    def test_an_app_that_counts_no_subscriptions_lists_its_channels_all_the_same(self):
        server = serve("--app", APP)
        self.addCleanup(server.stop)
        url = f"pusher://my-key:my-secret@127.0.0.1:{server.port}/42"
        with Subscriber(self.home, url, "news") as subscriber:
            subscriber.tells("subscribed")
            self.assertEqual(self.taut("channels", TAUT_APP_URL=url)[0].splitlines()[1].split(), ["news", "-", "-"])
            self.assertIn("news: not counted", self.taut("publish", "news", "e", "--info", TAUT_APP_URL=url)[0])


class Failures(WithServer):
    def test_the_wrong_secret_is_refused_with_a_clear_sentence(self):
        url = self.url.replace("my-secret", "wrong")
        for arguments in [["publish", "news", "e"], ["channels"]]:
            _, err = self.taut(*arguments, code=5, TAUT_APP_URL=url)
            self.assertIn('401: the secret is not that of the key "my-key", or a proxy changed the path', err)
            self.assertIn("It said: Invalid signature", err)
            self.assertNotIn("wrong", err)
        _, err = self.taut("subscribe", "private-a", code=5, TAUT_APP_URL=url)
        self.assertIn("the server refused: private-a: ", err)
        self.assertNotIn("wrong", err)

    def test_an_unknown_key_or_app_is_refused(self):
        url = self.url.replace("my-key", "nobody")
        self.assertIn('has no key "nobody"', self.taut("publish", "news", "e", code=5, TAUT_APP_URL=url)[1])
        self.assertIn("4001", self.taut("subscribe", "news", code=5, TAUT_APP_URL=url)[1])
        url = self.url.replace("/42", "/43")
        self.assertIn("the app does not exist", self.taut("publish", "news", "e", code=5, TAUT_APP_URL=url)[1])

    def test_no_server_is_told_from_one_that_refuses(self):
        gone = serve("--app", APP)
        gone.stop()
        url = f"pusher://my-key:my-secret@127.0.0.1:{gone.port}/42"
        for arguments in [["publish", "news", "e"], ["channels"], ["subscribe", "news"]]:
            self.taut(*arguments, code=2, TAUT_APP_URL=url)

    def test_a_server_that_does_not_answer_in_time_ends_it(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"pusher://my-key:my-secret@127.0.0.1:{silent.getsockname()[1]}/42"
            options = {"code": 124, "TAUT_APP_URL": url}
            _, err = self.taut("publish", "news", "e", "--timeout", "200ms", **options)
            self.assertIn("no answer within 0.2 s (--timeout); the event may have been published", err)
            _, err = self.taut("channels", "--timeout", "200ms", **options)
            self.assertTrue(err.endswith("no answer within 0.2 s (--timeout)\n"), err)

    def test_a_channel_has_a_name(self):
        for name in ["", "a b"]:
            self.taut("channels", name, code=64, TAUT_APP_URL=self.url)

    def test_an_app_is_given_by_a_file_of_variables(self):
        file = self.home / ".env"
        lines = ["APP_NAME=shop", "PUSHER_APP_ID=42", "PUSHER_APP_KEY=my-key", "PUSHER_APP_SECRET='my-secret'"]
        lines += ["PUSHER_HOST=127.0.0.1", f"PUSHER_PORT={self.server.port}", "PUSHER_SCHEME=http"]
        file.write_text("\n".join(lines))
        with Subscriber(self.home, None, "private-a", "--raw", "--env-file", str(file)) as subscriber:
            subscriber.tells("subscribed")
            self.taut("publish", "private-a", "e", "7", "--env-file", str(file))
            self.assertEqual(subscriber.line(), "7")
        self.taut("channels", "--env-file", str(file), code=5, PUSHER_APP_KEY="nobody")
        file.write_text("PUSHER_APP_KEY=my key")
        self.assertIn(f"{file}, line 1: ", self.taut("channels", "--env-file", str(file), code=64)[1])
        file.write_text("APP_NAME=shop")
        self.assertIn("names no app", self.taut("channels", "--env-file", str(file), code=64)[1])

    def test_taut_serve_ignores_the_variables_of_these_commands(self):
        out, _ = self.taut("serve", "--check", TAUT_APP_URL=self.url, TAUT_ENCRYPTION_KEY=MASTER_KEY)
        self.assertNotIn("note: ", out)

    def test_an_app_is_given_by_laravels_variables_or_by_flags(self):
        laravel = {"REVERB_APP_ID": "42", "REVERB_APP_KEY": "my-key", "REVERB_APP_SECRET": "my-secret"}
        laravel |= {"REVERB_HOST": "127.0.0.1", "REVERB_PORT": str(self.server.port), "REVERB_SCHEME": "http"}
        self.taut("channels", **laravel)
        self.taut("channels", "--app", APP, "--port", str(self.server.port))
        flags = ["--app-id", "42", "--app-key", "my-key", "--app-secret", "my-secret"]
        self.taut("channels", *flags, "--port", str(self.server.port))

    def test_without_an_app_it_is_the_development_app_and_says_so(self):
        server = serve()
        self.addCleanup(server.stop)
        _, err = self.taut("publish", "news", "e", "--port", str(server.port))
        self.assertIn(f"no app is given: this is the development app on 127.0.0.1:{server.port}", err)


class Restarts(Case):
    def test_it_comes_back_and_subscribes_again_after_a_restart(self):
        server = serve("--app", APP)
        url = f"pusher://my-key:my-secret@127.0.0.1:{server.port}/42"
        with Subscriber(self.home, url, "private-a", "presence-b", "--user-id", "7", "--json") as subscriber:
            subscriber.tells("subscribed to presence-b")
            server.stop()
            subscriber.tells("connection lost")
            server = serve("--app", APP, port=server.port)
            self.addCleanup(server.stop)
            subscriber.tells("subscribed again to private-a")
            subscriber.tells("subscribed again to presence-b, users: 1 (7)")
            self.taut("publish", "private-a", "e", "1", TAUT_APP_URL=url)
            self.assertEqual(subscriber.event()["data"], 1)


class Tls(Case):
    def test_certificates_are_checked(self):
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.home)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
        openssl("req", *key, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=localhost")
        (self.home / "names").write_text("subjectAltName=DNS:localhost")
        openssl("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "names", "-out", "cert.pem")
        server = serve("--app", APP, "--tls-certificate", f"{self.home}/cert.pem", "--tls-key", f"{self.home}/key.pem")
        self.addCleanup(server.stop)
        url = f"pushers://my-key:my-secret@localhost:{server.port}/42"
        for arguments in [["channels"], ["subscribe", "news", "--timeout", "10s"]]:
            self.taut(*arguments, code=3, TAUT_APP_URL=url)
        with Subscriber(self.home, url, "news", "--raw", "--once", "--cacert", f"{self.home}/ca.pem") as subscriber:
            subscriber.tells("subscribed")
            self.taut("publish", "news", "e", "7", "--insecure", TAUT_APP_URL=url)
            self.assertEqual((subscriber.line(), subscriber.end()), ("7", 0))
        self.taut("channels", "--cacert", f"{self.home}/ca.pem", TAUT_APP_URL=url)


class Signatures(WithServer):
    def test_it_signs_as_pushers_library_does_and_explains_what_does_not(self):
        def endpoint(channel, data):
            return json.loads(self.library(f"print(json.dumps(client.authenticate({channel!r}, '1.2', {data!r})))"))

        def check(auth, *arguments, code=0):
            return self.taut("sign", *arguments, "--check", auth, code=code, TAUT_APP_URL=self.url)[0]

        auth = endpoint("private-a", None)["auth"]
        out, _ = self.taut("sign", "private-a", "1.2", "--json", TAUT_APP_URL=self.url)
        self.assertEqual(json.loads(out)["answer"], {"auth": auth})
        self.assertEqual(check(auth, "private-a", "1.2"), "the signature is right\n")
        self.assertIn("none of the usual", check(auth, "private-b", "1.2", code=1))
        self.assertIn("the key is missing", check(auth.split(":")[1], "private-a", "1.2", code=1))
        answer = endpoint("presence-a", {"user_id": "7", "user_info": {"name": "Ada"}})
        self.assertIn("right", check(answer["auth"], "presence-a", "1.2", "--data", answer["channel_data"]))
        compact = json.dumps(json.loads(answer["channel_data"]), separators=(",", ":"))
        self.assertIn("written differently", check(answer["auth"], "presence-a", "1.2", "--data", compact, code=1))

    def signed(self, *request):
        """The line for curl."""
        return self.taut("sign", "--request", *request, TAUT_APP_URL=self.url)[0].splitlines()[-1]

    def test_the_server_accepts_the_request_that_it_signs(self):
        body = '{"name":"it\'s","channels":["news"],"data":"{}"}'
        with self.subscriber("news", "--json", "--once") as subscriber:
            subscriber.tells("subscribed")
            curl = self.signed("POST", "/events", body)
            self.assertTrue(curl.startswith("curl -X 'POST' "), curl)
            self.assertEqual(bash(f"{curl} --silent --fail"), "{}")
            self.assertEqual(subscriber.event()["event"], "it's")

    def test_a_url_that_was_signed_before_is_signed_anew(self):
        body = '{"name":"e","channels":["news"],"data":"{}"}'
        url = bash(f"echo {self.signed('POST', '/events', body).split()[3]}").strip()
        self.assertIn("&body_md5=", url)
        file = self.home / "body.json"
        file.write_text('{"name":"other","channels":["news"],"data":"@file"}')
        with self.subscriber("news", "--json", "--once") as subscriber:
            subscriber.tells("subscribed")
            self.assertEqual(bash(f"{self.signed('POST', url, f'@{file}')} --silent --fail"), "{}")
            event = subscriber.event()
            self.assertEqual((event["event"], event["data"]), ("other", "@file"))
        counted = self.signed("GET", "/channels?filter_by_prefix=presence-&info=user_count")
        self.assertEqual(bash(f"{counted} --silent --fail"), '{"channels":{}}')


if __name__ == "__main__":
    unittest.main()
