"""The programs that a run starts, each from its start to its end."""

import re
import shutil
import signal
import subprocess
import threading

SECONDS_TO_START = 30
SECONDS_TO_STOP = 10


class CannotRun(Exception):
    """The run could not be made; says nothing about anybody's conformance."""

    def __init__(self, message, exit_code=2):
        super().__init__(message)
        self.exit_code = exit_code


class Listener:
    """A program that others connect to: its first line says where, and SIGTERM ends it, with exit code 0."""

    def __init__(self, name, command, scheme, log, folder=None, hint=""):
        """Waits until it listens. `name` is what complaints call it, `hint` what to do if it is not there; all that
        it prints but its first line goes into the file `log`."""
        self.name = name
        self.log = log
        self.first_line = None
        self.has_spoken = threading.Event()
        with log.open("wb") as errors:
            self.process = start(name, command, hint, cwd=folder, stdout=subprocess.PIPE, stderr=errors)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        try:
            self.address = self.wait_for_address(scheme)
        except BaseException:
            self.kill()
            raise

    def read(self):
        """Takes the first line, and keeps the pipe empty from then on so that the program never waits for us."""
        self.first_line = self.process.stdout.readline().decode(errors="replace").strip()
        self.has_spoken.set()
        with self.log.open("ab") as log:
            for line in self.process.stdout:
                log.write(line)

    def wait_for_address(self, scheme):
        if not self.has_spoken.wait(SECONDS_TO_START):
            raise CannotRun(f"{self.name} printed nothing within {SECONDS_TO_START} s")
        match = re.fullmatch(rf"listening on ({scheme}://127\.0\.0\.1:\d+)", self.first_line)
        if not match:
            raise CannotRun(f"the first line of {self.name} must be 'listening on {scheme}://127.0.0.1:PORT', but it was {self.first_line!r}; its stderr:\n{tail(self.log, 15)}")
        return match[1]

    def stop(self):
        """Ends the program as an operator would; what was wrong with how it ended."""
        if self.process.poll() is not None:
            return [f"{self.name} ended by itself during the run, with exit code {self.process.returncode}; its last words:\n{tail(self.log, 15)}"]
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            return [f"{self.name} was still there {SECONDS_TO_STOP} s after SIGTERM"]
        return [] if code == 0 else [f"{self.name} ended with exit code {code} on SIGTERM, wanted 0"]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(timeout=SECONDS_TO_STOP)
        # A process that it started may still hold the other end.
        if not self.reader.is_alive():
            self.process.stdout.close()


def run_to_end(name, command, log, timeout, folder=None, hint=""):
    """Runs a program that ends by itself, its output into the file `log`; what was wrong with how it ended."""
    with log.open("wb") as output:
        process = start(name, command, hint, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            return [f"{name} was ended after {timeout} s; its last words:\n{tail(log, 3)}"]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        return [f"{name} failed with exit code {process.returncode}; its last words:\n{tail(log, 15)}"]
    return []


def start(name, command, hint, **streams):
    command = [str(word) for word in command]
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, **streams)
    except OSError as error:
        raise CannotRun(f"cannot start {name}: {error}{'' if shutil.which(command[0]) else hint}") from error


def tail(file, lines):
    text = file.read_text(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in text[-lines:] or ["(nothing)"])
