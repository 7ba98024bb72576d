"""Apps in a table of a real database: read at the start, followed while it changes, kept while it is away."""

import contextlib
import glob
import hashlib
import hmac
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

TAUT = os.environ["TAUT_BIN"]
PASSWORD = "s3cret/of@the:test"
ESCAPED = "s3cret%2Fof%40the%3Atest"
WITHIN = 30

# With every column that another server of this protocol has there, as MariaDB and PostgreSQL both take it.
TABLE = """CREATE TABLE apps (
  id varchar(255) PRIMARY KEY, {key} varchar(255) NOT NULL, secret varchar(255) NOT NULL,
  max_connections integer NOT NULL, enable_client_messages {small} NOT NULL, enabled {small} NOT NULL,
  max_backend_events_per_sec integer NOT NULL, max_client_events_per_sec integer NOT NULL, max_read_req_per_sec integer NOT NULL,
  webhooks json, max_event_payload_in_kb integer, max_presence_members_per_channel {small}, enable_user_authentication {small} NOT NULL,
  options {text}, created_at timestamp DEFAULT CURRENT_TIMESTAMP, weight double precision DEFAULT 0.5
)"""


def insert(app, secret, options="NULL", enabled=1):
    return f"""INSERT INTO apps VALUES ('{app}', '{app}-key', '{secret}', -1, 1, {enabled}, -1, -1, -1,
      '[{{"url": "http://127.0.0.1:9/", "event_types": ["cache_miss"]}}]', 1, 100, 0, {options}, DEFAULT, DEFAULT)"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, is_so):
    until = time.monotonic() + WITHIN
    while not is_so():
        if time.monotonic() > until:
            raise AssertionError(f"not within {WITHIN} s: {what() if callable(what) else what}")
        time.sleep(0.05)


class Database:
    """A server with its data in a folder of its own, owned by the user that Debian's package runs it as."""

    def __init__(self, user):
        self.user = user if os.getuid() == 0 else None
        self.folder = tempfile.mkdtemp(prefix="taut-database-")
        self.port = free_port()
        self.process = None
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.initialise()
        self.start()

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *command, **options):
        if self.user:
            options["user"], options["group"], options["extra_groups"] = self.user, self.user, []
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.folder, **options)

    def start(self):
        options = {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}
        log = open(self.path("log"), "a")
        with log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder, **options)
        eventually(lambda: open(self.path("log")).read(), self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(open(self.path("log")).read())
        with contextlib.suppress(subprocess.CalledProcessError):
            self.sql("SELECT 1")
            return True
        return False

    def stop(self):
        self.process.send_signal(self.STOP)
        self.process.wait(WITHIN)

    def close(self):
        if self.process and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSQL(Database):
    STOP = signal.SIGINT  # its fast shutdown
    TYPES = {"key": '"key"', "small": "smallint", "text": "jsonb"}

    def __init__(self):
        self.programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        super().__init__("postgres")
        self.url = f"postgres://taut:{ESCAPED}@127.0.0.1:{self.port}/postgres"

    def initialise(self):
        with open(self.path("password"), "w") as file:
            file.write(PASSWORD)
        os.chmod(self.path("password"), 0o644)
        self.run(f"{self.programs}/initdb", "-D", "data", "-U", "taut", "-A", "scram-sha-256", "--pwfile", "password", "--no-sync")

    def command(self):
        return [f"{self.programs}/postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", self.folder, "-F"]

    def sql(self, text):
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        self.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port), "-U", "taut", "-d", "postgres", "-c", text, env=environment)


class MariaDB(Database):
    STOP = signal.SIGTERM
    TYPES = {"key": "`key`", "small": "tinyint(1)", "text": "json"}

    def __init__(self):
        super().__init__("mysql")
        self.sql(f"CREATE USER taut@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; CREATE USER taut@localhost IDENTIFIED BY '{PASSWORD}'")
        self.sql("GRANT SELECT ON test.* TO taut@'127.0.0.1'; GRANT SELECT ON test.* TO taut@localhost")
        self.url = f"mysql://taut:{ESCAPED}@127.0.0.1:{self.port}/test"

    def initialise(self):
        self.run("mariadb-install-db", "--no-defaults", f"--datadir={self.path('data')}", "--auth-root-authentication-method=normal")

    def command(self):
        return ["mariadbd", "--no-defaults", f"--datadir={self.path('data')}", f"--socket={self.path('socket')}",
                f"--pid-file={self.path('pid')}", f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-log-bin"]

    def sql(self, text):
        self.run("mariadb", "--no-defaults", f"--socket={self.path('socket')}", "-u", "root", "-e", f"CREATE DATABASE IF NOT EXISTS test; USE test; {text}")


class Taut:
    """`taut serve`, its log kept."""

    def __init__(self, url, *options):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TAUT_")}
        environment["TAUT_APPS_DATABASE"] = url
        command = [TAUT, "serve", "--listen", "127.0.0.1:0", "--shards", "1", "--apps-reload", "1", "--drain-timeout", "1", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(iter(self.process.stderr.readline, "")))
        self.reader.start()
        line = self.process.stdout.readline()
        found = re.match(r"listening on (http://\S+)", line)
        if not found:
            self.close()
            raise AssertionError(f"{line}\n{self.log()}")
        self.origin = found[1]

    def log(self):
        return "".join(self.lines)

    def publish(self, app, secret):
        """The status of a publish that is signed with an app's secret."""
        body = json.dumps({"name": "event", "channels": ["channel"], "data": "x"}).encode()
        parameters = f"auth_key={app}-key&auth_timestamp={int(time.time())}&auth_version=1.0&body_md5={hashlib.md5(body).hexdigest()}"
        signed = hmac.new(secret.encode(), f"POST\n/apps/{app}/events\n{parameters}".encode(), hashlib.sha256).hexdigest()
        request = urllib.request.Request(f"{self.origin}/apps/{app}/events?{parameters}&auth_signature={signed}", body,
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def closed_with(self, app):
        """The code with which a client of an app is sent away; None if it is let in."""
        address = self.origin.removeprefix("http://")
        head = (f"GET /app/{app}-key?protocol=7 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), WITHIN) as client, client.makefile("rb") as heard:
            client.sendall(head.encode())
            if b" 101 " not in heard.readline():
                raise AssertionError("no WebSocket")
            while heard.readline().strip():
                pass
            # The first message is pusher:connection_established or pusher:error, neither of them long.
            _text, length = heard.read(2)
            message = json.loads(heard.read(length if length < 126 else int.from_bytes(heard.read(2), "big")))
            return message["data"]["code"] if message["event"] == "pusher:error" else None

    def close(self):
        self.process.terminate()
        self.process.wait(WITHIN)
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Apps:
    def setUp(self):
        self.database = self.DATABASE()
        self.addCleanup(self.database.close)

    def serve(self):
        taut = Taut(self.database.url)
        self.addCleanup(taut.close)
        return taut

    def expect(self, taut, app, secret, status):
        eventually(lambda: f"{status} for {app}, but {taut.publish(app, secret)}\n{taut.log()}", lambda: taut.publish(app, secret) == status)

    def test_a_table_is_followed_and_its_apps_outlive_its_server(self):
        self.database.sql(TABLE.format(**self.database.TYPES))
        self.database.sql(insert("one", "x", "'{\"watchlist\": true}'"))
        taut = self.serve()
        self.assertEqual(taut.publish("one", "x"), 200)
        self.assertEqual(taut.publish("one", "wrong"), 401)
        self.assertEqual(taut.publish("two", "y"), 404)

        self.database.sql(insert("two", "y"))
        self.expect(taut, "two", "y", 200)
        self.database.sql("UPDATE apps SET secret = 'z' WHERE id = 'two'")
        self.expect(taut, "two", "z", 200)
        self.database.sql("UPDATE apps SET enabled = 0 WHERE id = 'two'")
        eventually(lambda: f"no close with 4003\n{taut.log()}", lambda: taut.closed_with("two") == 4003)
        self.assertIsNone(taut.closed_with("one"))
        self.database.sql("DELETE FROM apps WHERE id = 'two'")
        self.expect(taut, "two", "z", 404)

        self.database.stop()
        eventually(taut.log, lambda: "the apps that are known are served on" in taut.log())
        self.assertEqual(taut.publish("one", "x"), 200)
        self.database.start()
        self.database.sql(insert("three", "w"))
        self.expect(taut, "three", "w", 200)
        for secret in (PASSWORD, ESCAPED):
            self.assertNotIn(secret, taut.log())

    def test_a_check_says_whether_the_table_can_be_read(self):
        check = lambda: subprocess.run([TAUT, "serve", "--check", "--apps-database", self.database.url], capture_output=True, text=True)
        refused = check()
        self.assertEqual(refused.returncode, 1, refused)
        self.assertIn("apps-database: the apps cannot be read", refused.stderr)
        self.database.sql(TABLE.format(**self.database.TYPES))
        good = check()
        self.assertEqual(good.returncode, 0, good)
        self.assertIn("apps in the table apps of the database: 0", good.stdout)
        self.database.sql(insert("one", "x", "'{\"colour\": 1}'"))
        refused = check()
        self.assertEqual(refused.returncode, 1, refused)
        self.assertIn('app "one": there is no setting of an app "colour"', refused.stderr)
        self.database.stop()
        refused = check()
        self.assertEqual(refused.returncode, 1, refused)
        for text in (good.stdout, good.stderr, refused.stderr):
            self.assertNotIn(PASSWORD, text)
            self.assertNotIn(ESCAPED, text)


class AppsInPostgreSQL(Apps, unittest.TestCase):
    DATABASE = PostgreSQL


class AppsInMariaDB(Apps, unittest.TestCase):
    DATABASE = MariaDB
