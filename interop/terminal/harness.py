"""The real binary under a pseudo-terminal with a screen, or in pipes, and peers for it."""

import contextlib
import fcntl
import logging
import os
import pathlib
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import termios
import threading
import time

import pexpect
import pyte
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.sync.server import serve

import pictures

TAUT = os.environ["TAUT_BIN"]
PEERS = pathlib.Path(__file__).parent.parent / "peers"
# What a wait may take on a machine that is busy; nothing waits for it to pass.
PATIENCE = 30


def environment(home, **more):
    """What the program sees: nothing of the person who runs the tests."""
    fixed = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    return {**fixed, "XDG_STATE_HOME": f"{home}/state", **more}


class Terminal:
    """`taut` at a terminal of so many rows and columns."""

    def __init__(self, home, *arguments, rows=24, columns=100, **variables):
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.command = ["taut", *arguments]
        self.child = pexpect.spawn(
            TAUT, list(arguments), env=environment(home, **variables), dimensions=(rows, columns), timeout=PATIENCE
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.close(force=True)

    def type(self, text):
        self.child.send(text)

    def enter(self, text=""):
        self.child.send(text + "\r")

    def paste(self, text):
        """As a terminal pastes: between marks (bracketed paste), lines ended by carriage returns."""
        self.child.send("\x1b[200~" + text.replace("\n", "\r") + "\x1b[201~")

    def resize(self, rows, columns):
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def text(self):
        """All that was printed, and is on the screen or above it."""
        above = ["".join(line[column].data for column in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display])

    def shows(self, wanted):
        """Waits until the screen shows this text, or satisfies this function."""
        met = wanted if callable(wanted) else lambda text: wanted in text
        until = time.monotonic() + PATIENCE
        while not met(self.text()):
            try:
                self._feed(self.child.read_nonblocking(65536, timeout=max(0.01, until - time.monotonic())))
            except (pexpect.EOF, pexpect.TIMEOUT) as error:
                raise AssertionError(f"{wanted!r} is not on the screen ({type(error).__name__}):\n{self.text()}") from None
        return self.text()

    def end(self):
        """Waits until it has ended: the exit code."""
        with contextlib.suppress(pexpect.EOF):
            while True:
                self._feed(self.child.read_nonblocking(65536, timeout=PATIENCE))
        self.child.wait()
        return self.child.exitstatus if self.child.exitstatus is not None else -self.child.signalstatus

    def picture(self, name):
        pictures.take(self.screen, name, " ".join(self.command))

    def _feed(self, data):
        self.raw += data
        self.stream.feed(data)


def run(home, *arguments, text="", data=None, timeout=PATIENCE, **variables):
    """`taut` in pipes: code, stdout and stderr."""
    process = start(home, *arguments, **variables)
    out, err = process.communicate(data if data is not None else text.encode(), timeout=timeout)
    return process.returncode, out, err.decode()


def start(home, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **variables):
    return subprocess.Popen(
        [TAUT, *arguments], env=environment(home, **variables), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )


class Program:
    """A program that serves, until it is stopped; it says where in a line that matches."""

    def __init__(self, command, says=r"127\.0\.0\.1:(\d+)", **options):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        self.port = None
        # A program that says nothing ends, and so does the wait for it.
        limit = threading.Timer(PATIENCE, self.process.kill)
        limit.start()
        for line in self.process.stdout:
            if found := re.search(says, line.decode()):
                self.port = int(found.group(1))
                break
        limit.cancel()
        if not self.port:
            raise AssertionError(f"{command} does not say where it listens")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def echo(*arguments, port=0):
    return Program([TAUT, "echo", "--listen", f"127.0.0.1:{port}", *arguments])


def node_echo():
    """The package `ws` of npm."""
    source = """
      import { WebSocketServer } from 'ws';
      const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: { threshold: 0 } });
      server.on('listening', () => console.log(`listening on 127.0.0.1:${server.address().port}`));
      server.on('connection', (socket, request) => {
        socket.on('message', (data, isBinary) => socket.send(
          String(data) === 'please: headers' ? JSON.stringify(request.headers) : data, { binary: isBinary }));
      });
    """
    return Program(["node", "--input-type=module", "-e", source], cwd=PEERS)


class Server:
    """A server on the package `websockets` of PyPI; `behave` is what it does with a connection."""

    def __init__(self, behave, tls=None, port=0, **options):
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
        # It logs every connection that does not end as its handler wishes, and here most do not.
        quiet = logging.getLogger("websockets.quiet")
        quiet.disabled = True
        self.server = serve(behave, "127.0.0.1", port, ssl=context, process_request=refuse, logger=quiet, **options)
        self.port = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()


def refuse(connection, request):
    """A path that is an HTTP status is answered with it."""
    if found := re.fullmatch(r"/status/(\d+)", request.path):
        return Response(int(found.group(1)), "No", Headers({"Content-Length": "5", "Content-Type": "text/plain"}), b"no!\n\n")
    return None


def behave(connection):
    """Does what the path says, else what messages say, else sends them back."""
    if found := re.fullmatch(r"/close/(\d+)", connection.request.path):
        connection.close(int(found.group(1)), "as you wish")
        return
    if connection.request.path == "/headers":
        connection.send("\n".join(f"{name}: {value}" for name, value in connection.request.headers.raw_items()))
    for message in connection:
        if isinstance(message, str) and (found := re.fullmatch(r"please: close (\d+) ?(.*)", message)):
            connection.close(int(found.group(1)), found.group(2))
        elif message == "please: ping":
            connection.ping(b"of the server").wait(PATIENCE)
            connection.send("it was answered")
        else:
            connection.send(message)


class RawServer:
    """Answers the handshake, then does what `act` does with the socket."""

    def __init__(self, act, answers=True):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(act, answers), daemon=True).start()

    def _serve(self, act, answers):
        from websockets.utils import accept_key

        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                head = b""
                while answers and b"\r\n\r\n" not in head:
                    data = connection.recv(4096)
                    if not data:
                        break
                    head += data
                if answers:
                    found = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
                    if not found:
                        connection.close()
                        continue
                    key = found.group(1).decode()
                    connection.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
                    )
                act(connection)

    def stop(self):
        self.listener.close()


class Flood(Server):
    """Sends more than anybody keeps; `codes` are the close codes of its connections."""

    def __init__(self, first=(), message="x" * 100_000, count=2000):
        self.sent, self.codes, self.connection = 0, [], None

        def flood(connection):
            self.connection = connection
            with contextlib.suppress(ConnectionClosed):
                for text in first:
                    connection.send(text)
                for _ in range(count):
                    connection.send(message)
                    self.sent += 1
                connection.close()
            self.codes.append(connection.close_code)

        super().__init__(flood)

    def halts(self, process):
        """Waits until nothing moves: the program's output is full, and so is the connection."""
        capacity = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
        until, full = time.monotonic() + PATIENCE, 0
        # Between two buffers there may be a moment in which both are full.
        while full < 5:
            waiting = struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4)))[0]
            is_full = waiting >= capacity - 4096 and not select.select([], [self.connection.socket], [], 0)[1]
            full = full + 1 if is_full else 0
            if time.monotonic() > until:
                raise AssertionError(f"{self.sent} messages were sent, and {waiting} bytes wait in the pipe")
            time.sleep(0.05)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port):
    """Waits until somebody listens on the port."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def certificate(folder):
    """A self-signed certificate for localhost, and its key."""
    paths = f"{folder}/certificate.pem", f"{folder}/key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", "/CN=A test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-out", paths[0], "-keyout", paths[1]],
        check=True, capture_output=True,
    )
    return paths


def memory(process):
    """Bytes of memory that a process has."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024


class Home:
    """A folder that is the home of whoever runs `taut`, for one test."""

    def __init__(self, test):
        folder = tempfile.TemporaryDirectory(prefix="taut-terminal-")
        test.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
