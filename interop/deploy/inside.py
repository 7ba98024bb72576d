"""The package under systemd, from its installation to its end. Runs as root in a machine of its own: see `boot`."""

import contextlib
import ctypes
import os
import pathlib
import socket
import subprocess
import threading
import time
import unittest

from client import websocket
from page import Page

PACKAGES = pathlib.Path("/packages")
PAGE = Page(PACKAGES / "deploy.md")
CONFIGURATION = pathlib.Path("/etc/taut/taut.toml")
PATIENCE = 30
APP = '[[apps]]\nid = "1"\nkey = "a-key"\nsecret = "a-secret"\n'


def run(*command):
    """What a command prints; it has to end well."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{log()}"
    return done.stdout.strip()


def log():
    return subprocess.run(["journalctl", "--unit=taut.service", "--unit=taut.socket", "--no-pager", "--lines=40"], capture_output=True, text=True).stdout


def shown(name, unit="taut.service"):
    return run("systemctl", "show", "--property", name, "--value", unit)


def eventually(what, is_so):
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, f"{what} did not happen\n{log()}"
        time.sleep(0.02)


def status(path="/up", port=6001):
    """The status of an answer, from a connection of its own. Not of /ready: who asks for that is given notice of each stop."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return int(stream.makefile("rb").readline().split()[1])


def configure(text):
    """Puts a configuration in the place of the one that was there, with its owner and its mode."""
    CONFIGURATION.write_text(f'data-directory = "/var/lib/taut"\n{text}{APP}')


def drop_in(unit, text):
    folder = pathlib.Path(f"/run/systemd/system/{unit}.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)
    run("systemctl", "daemon-reload")


class Crowd:
    """Clients that come all the time; what went wrong for them."""

    def __enter__(self):
        self.failures, self.served, self.is_over = [], 0, False
        self.threads = [threading.Thread(target=self.come) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        return self

    def come(self):
        while not self.is_over:
            try:
                answer = status()
                if answer != 200:
                    self.failures.append(answer)
            except (OSError, IndexError) as error:
                self.failures.append(error)
            self.served += 1

    def __exit__(self, *_):
        self.is_over = True
        for thread in self.threads:
            thread.join()


class Service(unittest.TestCase):
    """One life of the package; the steps run in the order of their names."""

    def client(self):
        client = websocket()
        self.addCleanup(client.close)
        return client

    def test_1_an_installation_serves_a_development_app_to_this_machine_only(self):
        os.chdir(PACKAGES / "old")
        run("sh", "-ec", 'sudo() { "$@"; }\n' + PAGE.block("The Debian package", "sh", 1))
        self.assertEqual(run("systemctl", "is-active", "taut.service"), "active")
        self.assertEqual(run("systemctl", "is-enabled", "taut.service"), "enabled")
        self.assertEqual(status(), 200)
        self.assertEqual(shown("StatusText"), "clients on http://127.0.0.1:6001")
        process = pathlib.Path("/proc") / shown("MainPID")
        facts = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
        self.assertEqual(facts["Uid"].split()[0], run("id", "--user", "taut"))
        self.assertEqual((facts["CapEff"].strip(), facts["NoNewPrivs"].strip()), ("0" * 16, "1"))
        files = next(line for line in (process / "limits").read_text().splitlines() if line.startswith("Max open files"))
        # Less than LimitNOFILE= where this machine itself may not have as much.
        self.assertEqual(files.split()[3], files.split()[4])
        self.assertEqual(run("stat", "--format=%U:%G %a", str(CONFIGURATION)), "root:taut 640")
        self.assertEqual(run("stat", "--format=%U:%G %a", "/var/lib/taut"), "taut:taut 700")
        self.assertEqual(shown("UnitFileState", "taut.socket"), "disabled")
        self.assertNotIn("denied", log().lower())
        self.assertNotIn("WARN", log())

    def test_2_a_reload_is_shown_and_a_broken_file_ends_nothing(self):
        configure('metrics-listen = "127.0.0.1:9601"\n')
        run("systemctl", "restart", "taut.service")
        self.assertEqual(status(port=9601), 200)
        client = self.client()
        configure('metrics-listen = "127.0.0.1:9601"\nlog-level = "many"\n')
        run("sh", "-ec", PAGE.block("The Debian package", "sh", 2))
        eventually("a status", lambda: "the configuration stays as it was" in shown("StatusText"))
        configure('metrics-listen = "127.0.0.1:9601"\n')
        run("systemctl", "reload", "taut.service")
        eventually("another status", lambda: shown("StatusText").endswith("metrics on http://127.0.0.1:9601"))
        eventually("the end of the reload", lambda: shown("ActiveState") == "active")
        client.sendall(b"\x89\x80\0\0\0\0")
        self.assertEqual(client.recv(2), b"\x8a\x00", "who was connected still is")

    def test_3_no_client_is_refused_while_the_service_restarts_behind_its_socket(self):
        configure("drain-timeout = 2\n")
        run("sh", "-ec", PAGE.block("systemd listens", "sh"))
        run("systemctl", "stop", "taut.service")
        self.assertEqual(status(), 200, "a client has it started")
        self.assertEqual(shown("StatusText"), "clients on http://[::]:6001")
        first = shown("MainPID")
        client = self.client()
        with Crowd() as crowd:
            eventually("some clients", lambda: crowd.served > 20)
            run("systemctl", "restart", "taut.service")
            before = crowd.served
            eventually("more clients", lambda: crowd.served > before + 20)
        self.assertNotEqual(shown("MainPID"), first)
        self.assertEqual(crowd.failures, [])
        self.assertIn(b"going down", client.recv(4096))
        self.client()

    def test_4_sockets_of_a_group_are_given_to_shards_and_a_named_one_to_the_metrics(self):
        drop_in("taut.socket", PAGE.block("systemd listens", "ini", 1))
        run("sh", "-ec", PAGE.block("systemd listens", "sh", 1))
        self.assertEqual(status(port=443), 200, "a port that the service itself could not have")
        run("systemctl", "stop", "taut.socket", "taut.service")
        drop_in("taut.socket", "[Socket]\nReusePort=yes\nListenStream=\n" + "ListenStream=127.0.0.1:6001\n" * 2)
        pathlib.Path("/run/systemd/system/taut-metrics.socket").write_text(
            "[Socket]\nListenStream=127.0.0.1:9601\nService=taut.service\nFileDescriptorName=metrics\n"
        )
        drop_in("taut.service", "[Service]\nEnvironment=TAUT_SHARDS=3\nSockets=taut.socket taut-metrics.socket\n")
        run("systemctl", "start", "taut.socket", "taut-metrics.socket")
        self.assertEqual([status() for _ in range(20)], [200] * 20)
        self.assertEqual(status("/metrics", 9601), 200)
        self.assertEqual(shown("StatusText"), "clients on http://127.0.0.1:6001, metrics on http://127.0.0.1:9601")

    def test_5_a_server_with_an_event_loop_that_is_stuck_is_started_again(self):
        drop_in("taut.service", "[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\nEnvironment=TAUT_SHARDS=2\n")
        run("systemctl", "restart", "taut.service")
        first = shown("MainPID")
        thread = stop_thread(first, "taut-shard-1")
        eventually("another start", lambda: has_ended(thread) and shown("MainPID") not in (first, "0") and shown("ActiveState") == "active")
        self.assertIn("Watchdog timeout", log())
        self.assertEqual(status(), 200)

    def test_6_an_upgrade_refuses_nobody_and_keeps_the_configuration(self):
        drop_in("taut.service", "")
        before, first = CONFIGURATION.read_text(), shown("MainPID")
        with Crowd() as crowd:
            eventually("some clients", lambda: crowd.served > 20)
            run("dpkg", "--install", *map(str, PACKAGES.glob("new/*.deb")))
        self.assertNotEqual(shown("MainPID"), first)
        self.assertEqual((crowd.failures, status()), ([], 200))
        self.assertEqual(CONFIGURATION.read_text(), before)
        self.assertEqual(shown("ActiveState", "taut.socket"), "active")

    def test_7_a_purge_leaves_nothing_but_the_user(self):
        run("dpkg", "--purge", "taut")
        self.assertEqual(shown("ActiveState", "taut.socket"), "inactive")
        with self.assertRaises(ConnectionRefusedError):
            status()
        for path in ["/etc/taut", "/etc/default/taut", "/var/lib/taut", "/usr/bin/taut", "/lib/systemd/system/taut.service"]:
            self.assertFalse(os.path.lexists(path), path)
        links = [str(link) for link in pathlib.Path("/etc/systemd/system").rglob("taut.*")]
        self.assertEqual(links, [])


def stop_thread(process, name):
    """Stops one thread of a process for good, as a loop that never ends would: a tracer interrupts it, and does not go on."""
    for task in pathlib.Path(f"/proc/{process}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            seize, interrupt = 0x4206, 0x4207
            libc = ctypes.CDLL(None, use_errno=True)
            libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
            for request in (seize, interrupt):
                assert libc.ptrace(request, int(task.name), None, None) == 0, os.strerror(ctypes.get_errno())
            return int(task.name)
    raise AssertionError(f"there is no thread {name}")


def has_ended(thread):
    """Whether a thread that was stopped has been killed. Its tracer has to ask, or its process cannot end."""
    all_threads = 0x40000000
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(thread, os.WNOHANG | all_threads))[0]:
            if os.WIFSIGNALED(found[1]):
                return True
        return False
    return True


if __name__ == "__main__":
    unittest.main(verbosity=2, failfast=True)
