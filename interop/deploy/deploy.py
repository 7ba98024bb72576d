"""Taut as a service: the units, the Debian package and the container image, with the programs that run them, and docs/deploy.md."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from client import websocket
from page import Page

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
PROGRAM = os.environ["TAUT_BIN"]
PAGE = Page(REPOSITORY / "docs/deploy.md")
PATIENCE = 60
CANNOT = 77
# podman leaves health checks to systemd's timers: the test asks instead. There is no bridge here, and no right to groups and limits.
RUN = ["--no-healthcheck", "--network=host", "--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]


def run(*command, code=0, **options):
    """What a command prints; it has to end with this code, or with any if that is None."""
    options = {"capture_output": True, "text": True, "timeout": PATIENCE * 2, "cwd": REPOSITORY, **options}
    done = subprocess.run([str(word) for word in command], **options)
    assert code in (None, done.returncode), f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + (done.stderr or "")


def eventually(what, find):
    """What `find` finds, as soon as it finds something."""
    until = time.monotonic() + PATIENCE
    while not (found := find()):
        assert time.monotonic() < until, f"{what} did not happen"
        time.sleep(0.02)
    return found


class Units(unittest.TestCase):
    def test_systemd_understands_the_units(self):
        with tempfile.TemporaryDirectory() as folder:
            for unit in DEPLOY.glob("systemd/*"):
                text = unit.read_text().replace("/usr/bin/taut", PROGRAM)
                pathlib.Path(folder, unit.name).write_text(text)
            units = sorted(str(path) for path in pathlib.Path(folder).iterdir())
            self.assertEqual(run("systemd-analyze", "verify", "--man=no", *units), "")

    def test_the_service_exposes_little(self):
        unit = DEPLOY / "systemd/taut.service"
        # In tenths, of 10.0 at most.
        told = run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)
        rated = re.search(r"Overall exposure level for taut.service: (\d\.\d) OK", told)[1]
        page = (REPOSITORY / "docs/deploy.md").read_text()
        self.assertIn(f"`systemd-analyze security taut` rates the exposure {rated} ", page)

    def test_the_service_may_stop_for_as_long_as_the_drain_may_take(self):
        settings = dict(re.findall(r"^\| `(drain-[a-z]+)` \|[^|]*\|[^|]*\| `?(\d+)`? \|", (REPOSITORY / "docs/configuration.md").read_text(), re.M))
        longest = sum(map(int, settings.values()))
        stop = int(re.search(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "systemd/taut.service").read_text(), re.M)[1])
        self.assertEqual(len(settings), 2)
        self.assertEqual(stop, longest + 10, "and the last steps: LAST_STEPS in serve.rs")


class Blocks(unittest.TestCase):
    def test_the_page_has_the_units_as_they_are(self):
        for heading, unit in [("The unit", "taut.service"), ("systemd listens", "taut.socket")]:
            self.assertEqual(PAGE.block(heading, "ini"), (DEPLOY / "systemd" / unit).read_text())

    def test_each_block_is_known_to_a_test(self):
        known = [
            *[("The Debian package", "sh")] * 3,  # Package, and in inside.py
            ("The unit", "ini"),
            *[("systemd listens", language) for language in ("ini", "sh", "ini", "sh")],  # above, and in inside.py
            *[("The container image", "sh")] * 3,  # Image
            ("A daemon on a managed server", "sh"),  # below
            ("The log", "text"),
        ]
        self.assertEqual(PAGE.names(), known)

    def test_the_daemon_of_a_managed_server_listens_where_nginx_looks_for_it(self):
        with tempfile.TemporaryDirectory() as folder:
            variables = pathlib.Path(folder, ".env")
            variables.write_text("REVERB_APP_ID=1\nREVERB_APP_KEY=a-key\nREVERB_APP_SECRET=a-secret\nREVERB_SERVER_HOST=0.0.0.0\nREVERB_SERVER_PORT=8080\n")
            command = PAGE.block("A daemon on a managed server", "sh").replace("/home/forge/example.com/.env", str(variables)).split()
            self.assertEqual(command[:2], ["taut", "serve"])
            told = run(PROGRAM, "serve", "--check", *command[2:])
            self.assertTrue("listens on 127.0.0.1:6001" in told and "app 1, key a-key" in told, told)


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.package = cls.built(cls.folder / "old", PROGRAM)
        # The next version is the same, but for its number.
        run("dpkg-deb", "--raw-extract", cls.package, cls.folder / "tree")
        control = cls.folder / "tree/DEBIAN/control"
        control.write_text(re.sub(r"^Version: .*", r"\g<0>+next", control.read_text(), flags=re.M))
        (cls.folder / "new").mkdir()
        run("dpkg-deb", "-Znone", "--build", cls.folder / "tree", cls.folder / "new")
        shutil.rmtree(cls.folder / "tree")
        shutil.copy2(REPOSITORY / "docs/deploy.md", cls.folder)

    @staticmethod
    def built(folder, program):
        """The package of a program, built by the commands of the page in a folder in the place of the repository."""
        (folder / "target/release").mkdir(parents=True)
        (folder / "target/release/taut").symlink_to(program)
        (folder / "deploy").symlink_to(DEPLOY)
        # Both have been done: the program is there, and so is debhelper.
        done = 'cargo() { [ "$*" = "build --release" ]; }\nsudo() { [ "$*" = "apt-get install --no-install-recommends debhelper" ]; }\n'
        quickly = {**os.environ, "DPKG_DEB_COMPRESSOR_LEVEL": "0"}
        return run("sh", "-ec", done + PAGE.block("The Debian package", "sh"), cwd=folder, env=quickly).strip()

    def test_lintian_finds_nothing(self):
        run("lintian", "--allow-root", "--fail-on", "error,warning", self.package)

    def test_a_pre_release_is_older_than_its_release(self):
        program = self.folder / "pre-release"
        program.write_text(f'#!/bin/sh\n[ "$1" != --version ] || exec echo "taut 1.0.0-rc.1 (0 2026-12-01)"\nexec {shlex.quote(PROGRAM)} "$@"\n')
        program.chmod(0o755)
        package = self.built(self.folder / "candidate", program)
        version = run("dpkg-deb", "--field", package, "Version").strip()
        run("dpkg", "--compare-versions", version, "lt", "1.0.0")
        run("dpkg", "--compare-versions", version, "gt", "0.9.9")

    def test_the_oldest_debhelper_that_builds_a_release_knows_its_rules(self):
        # Sequences by name are newer than the commands that they add: 13.6, of Ubuntu 22.04, has only these.
        self.assertNotIn("--with", (DEPLOY / "debian/rules").read_text().split())

    def test_it_holds_what_it_should(self):
        files = set(re.findall(r"^-.* \.(/\S+)$", run("dpkg-deb", "--contents", self.package), re.M))
        self.assertLessEqual({
            "/usr/bin/taut", "/etc/taut/taut.toml", "/etc/default/taut", "/lib/systemd/system/taut.service",
            "/lib/systemd/system/taut.socket", "/usr/lib/sysusers.d/taut.conf", "/usr/share/doc/taut/copyright",
            "/usr/share/bash-completion/completions/taut", "/usr/share/man/man1/taut.1.gz", "/usr/share/man/man1/taut-serve.1.gz",
        }, files)
        depends = run("dpkg-deb", "--field", self.package, "Depends")
        self.assertTrue("libc6 (>= " in depends and "systemd-sysusers" in depends, depends)
        self.assertEqual(run("dpkg-deb", "--info", self.package, "conffiles").split(), ["/etc/default/taut", "/etc/taut/taut.toml"])

    def test_its_configuration_serves_a_development_app_as_it_is_and_an_app_without_its_comments(self):
        text = (DEPLOY / "debian/taut.toml").read_text()
        with tempfile.TemporaryDirectory() as folder:
            check = lambda text: run(PROGRAM, "serve", "--check", "--config", self.written(folder, text))
            text = text.replace("/var/lib/taut", folder)
            self.assertIn("serves the development app, on this machine only", check(text))
            told = check(re.sub(r"^#(?=\S)", "", text, flags=re.M))
            self.assertTrue("listens on 0.0.0.0:6001" in told and "app 1, key a-key" in told, told)

    def test_the_service_starts_with_the_variables_that_its_file_shows(self):
        text = (DEPLOY / "debian/taut.default").read_text()
        variables = dict(line[1:].split("=", 1) for line in text.splitlines() if re.match(r"#\w+=", line))
        self.assertTrue(variables)
        told = run(PROGRAM, "serve", "--check", env={**os.environ, **variables})
        for name in variables:
            self.assertNotIn(name, told, "it would be named if nothing read it")

    @staticmethod
    def written(folder, text):
        path = pathlib.Path(folder, "taut.toml")
        path.write_text(text)
        return path

    def test_systemd_runs_it_from_its_installation_to_its_purge(self):
        here = pathlib.Path(__file__).parent
        done = subprocess.run([here / "boot", here / "inside.py", self.folder], capture_output=True, text=True, timeout=PATIENCE * 5)
        told = done.stdout + done.stderr
        if done.returncode == CANNOT:
            skip(self, f"the package under systemd: {done.stderr.strip().splitlines()[-1]}")
        print(told)
        self.assertEqual(done.returncode, 0)


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        # Storage of its own, in which nothing of another test is; and control groups of version 2 alone, as crun takes no mixture.
        cls.podman = [
            *["unshare", "--mount", "sh", "-c", 'mount -t cgroup2 none /sys/fs/cgroup; exec "$@"', "-"],
            *["podman", "--root", cls.folder / "storage", "--runroot", cls.folder / "run", "--storage-driver=vfs"],
            "--cgroup-manager=cgroupfs", "--events-backend=file",
        ]
        stand_in(cls.folder / "program")
        cls.do("build", "--tag=program", cls.folder / "program")
        cls.do("build", "--isolation=chroot", "--format=docker", "--build-arg=PROGRAM=localhost/program", "--tag=taut", REPOSITORY)
        cls.config = json.loads(cls.do("image", "inspect", "taut"))[0]

    @classmethod
    def do(cls, *command, code=0):
        return run(*cls.podman, *command, code=code)

    @contextlib.contextmanager
    def serving(self, *options):
        """A container that serves; its id."""
        container = self.do("run", "--detach", *RUN, *options, "taut").strip()
        try:
            eventually("a start", lambda: "listening on http://0.0.0.0:6001" in self.do("logs", container))
            yield container
        finally:
            self.do("rm", "--force", "--time=0", container)

    def health(self, container, *arguments, code=0):
        """What the image's health check says, or with arguments one of the same kind."""
        kind, *command = self.config["Healthcheck"]["Test"]
        self.assertEqual(kind, "CMD", "there is no shell")
        return self.do("exec", container, *command, *arguments, code=code)

    def test_hadolint_finds_nothing_in_its_recipe(self):
        self.assertEqual(run(pathlib.Path(os.environ["TAUT_PYTHON"]).with_name("hadolint"), "Dockerfile"), "")

    def test_it_is_small_and_runs_as_nobody_else(self):
        config = self.config["Config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(set(config["ExposedPorts"]), {"6001/tcp", "9601/tcp"})
        self.assertEqual(config["StopSignal"], "SIGTERM")
        # The rest is the program, which has 22 MB in a release.
        self.assertLess(self.config["Size"] - pathlib.Path(PROGRAM).stat().st_size, 4_000_000)

    def test_without_an_app_it_says_what_is_missing(self):
        told = self.do("run", "--rm", *RUN, "taut", code=1)
        self.assertIn("there is no app to serve on 0.0.0.0:6001", told)
        self.assertIn("TAUT_APPS", told)

    def test_it_serves_is_healthy_and_drains(self):
        with self.serving("--env=TAUT_APPS=1:a-key:a-secret") as container:
            self.assertEqual(self.health(container), "healthy\n")
            self.assertIn("404 Not Found", self.health(container, "http://127.0.0.1:9601/up/nobody", code=1))
            process = self.do("inspect", "--format={{.State.Pid}}", container).strip()
            facts = pathlib.Path("/proc", process, "status").read_text()
            self.assertEqual(re.search(r"^Uid:\t(\d+)", facts, re.M)[1], "65532")
            client = websocket()
            self.addCleanup(client.close)
            self.do("stop", "--time=30", container)
            self.assertIn(b"going down", client.recv(4096))
            state = json.loads(self.do("inspect", container))[0]["State"]
            self.assertEqual(state["ExitCode"], 0)
            self.assertIn("stopped", self.do("logs", container).splitlines()[-1])

    def test_the_commands_of_the_page_run_it(self):
        environment = {**os.environ, "PATH": f"{self.docker()}:{os.environ['PATH']}"}
        block = lambda number: ["sh", "-ec", PAGE.block("The container image", "sh", number)]
        run(*block(0), env=environment)
        told = run(*block(1), env=environment)
        self.assertIn("healthy\n", told)
        self.do("rm", "taut")
        # One command: a signal reaches it, and not a shell.
        command = ["bash", "-ec", "exec " + PAGE.block("The container image", "sh", 2)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        with subprocess.Popen(command, env=environment, **options) as serving:
            watchdog = threading.Timer(PATIENCE, os.killpg, [serving.pid, signal.SIGKILL])
            watchdog.start()
            told = ""
            while "Open http://127.0.0.1:6001/ in two tabs" not in told:
                line = serving.stdout.readline()
                self.assertTrue(line, told)
                told += line
            serving.terminate()
            serving.stdout.read()
            self.assertEqual(serving.wait(), 0, told)
            watchdog.cancel()

    def docker(self):
        """A folder with a program `docker` that is this machine's podman: it has the image, and may have less than the page says."""
        folder = self.folder / "bin"
        folder.mkdir()
        program = folder / "docker"
        words = lambda command: " ".join(shlex.quote(str(word)) for word in command)
        program.write_text(
            "#!/usr/bin/env bash\nset -euo pipefail\n"
            f"podman() {{ {words(self.podman)} \"$@\"; }}\n"
            'if [[ $1 == build ]]; then [[ $* == "build -t taut ." && -e Dockerfile ]]; exit; fi\n'
            'if [[ $1 != run ]]; then podman "$@"; exit; fi\n'
            "shift\nwords=()\n"
            'while (($#)); do case $1 in --ulimit | --network | -p) shift 2 ;; *) words+=("$1"); shift ;; esac; done\n'
            f'if [[ ${{words[0]}} != --detach ]]; then exec {words(self.podman)} run {words(RUN)} "${{words[@]}}"; fi\n'
            f'podman run {words(RUN)} "${{words[@]}}"\n'
            "until podman logs taut | grep -q listening; do sleep 0.05; done\n"
        )
        program.chmod(0o755)
        return folder

    def test_it_finds_hosts_by_name(self):
        with name_server("taut.test", "127.0.0.1"), self.serving("--dns=127.0.0.1", "--env=TAUT_APPS=1:a-key:a-secret", "--add-host=file.test:127.0.0.1") as container:
            for name in ["taut.test", "file.test"]:
                self.assertEqual(self.health(container, f"http://{name}:6001/up"), "healthy\n")
            self.assertIn("http://other.test/", self.health(container, "http://other.test/", code=1))

    def test_a_volume_for_webhooks_and_a_file_with_settings_can_be_mounted(self):
        folder = self.folder / "settings"
        folder.mkdir()

        def save(app):
            """As editors do: the new file takes the place of the old one."""
            new = folder / "taut.toml~"
            new.write_text(f'data-directory = "/var/lib/taut"\n[[apps]]\nid = "{app}"\nkey = "a-key"\nsecret = "a-secret"\n')
            new.chmod(0o644)
            new.rename(folder / "taut.toml")

        save("1")
        with self.serving("--env=TAUT_CONFIG=/etc/taut/taut.toml", f"--volume={folder}:/etc/taut:ro", "--volume=data:/var/lib/taut") as container:
            self.assertEqual(self.health(container), "healthy\n")
            save("2")
            eventually("the new app", lambda: "healthy" in self.health(container, "http://127.0.0.1:6001/up/2", code=None))

    def test_what_the_recipe_compiles_is_sent_to_it(self):
        context = self.folder / "context"
        (context / "recipe").mkdir(parents=True)
        recipe = context / "recipe/Dockerfile"
        recipe.write_text("FROM scratch\nCOPY . /\n")
        self.do("build", f"--file={recipe}", "--tag=context", REPOSITORY)
        sent = pathlib.Path(self.do("image", "mount", "context").strip())
        self.addCleanup(self.do, "image", "unmount", "context")
        # All members of the workspace, and all files that the sources include.
        run("cargo", "metadata", "--format-version=1", "--no-deps", "--offline", "--locked", cwd=sent)
        for source in sent.glob("crates/*/src/**/*.rs"):
            for path in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
                self.assertTrue((source.parent / path).exists(), f"{source}: {path}")
        size = sum(file.stat().st_size for file in sent.rglob("*") if file.is_file())
        self.assertLess(size, 30_000_000, "what is built here need not be sent")


def stand_in(folder):
    """An image in the place of the one that compiles the program: it has the program, and what lays out the files needs."""
    needed = ["sh", "bash", "ldd", "cp", "mkdir", "dirname", "install", "sed", "cat"]
    programs = [pathlib.Path(shutil.which(name)) for name in needed]
    files = {*programs, pathlib.Path("/etc/ssl/certs/ca-certificates.crt")}
    for program in [*programs, pathlib.Path(PROGRAM)]:
        files.update(map(pathlib.Path, re.findall(r"(/\S+) \(0x", run("ldd", program, code=None))))
    for file in files:
        place = folder / str(file).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.resolve(), place)
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("sh", "bash"):
        shutil.copy2(shutil.which(name), folder / "bin" / name)
    (folder / "tmp").mkdir()
    (folder / "usr/local/bin").mkdir(parents=True)
    shutil.copy2(PROGRAM, folder / "usr/local/bin/taut")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\nENV PATH=/usr/bin:/bin\n")


@contextlib.contextmanager
def name_server(name, address):
    """A server of names at 127.0.0.1 that knows one, and its address (RFC 1035 §4.1)."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    known = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"

    def serve():
        while True:
            try:
                query, peer = server.recvfrom(512)
            except OSError:
                return
            question = query[12 : query.index(b"\0", 12) + 5]
            is_known = question.lower() == known + struct.pack(">HH", 1, 1)
            # The code 3 says that there is no such name; a known one has addresses of IPv4 only.
            code = 0 if question.lower().startswith(known) else 3
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address) if is_known else b""
            server.sendto(query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, int(is_known), 0, 0) + question + answer, peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.close()


def skip(test, reason):
    """`./test` says in its summary what did not run."""
    if "TAUT_SKIPPED" in os.environ:
        with open(os.environ["TAUT_SKIPPED"], "a", encoding="utf-8") as skipped:
            skipped.write(f"{reason}\n")
    test.skipTest(reason)


if __name__ == "__main__":
    unittest.main(verbosity=2)
