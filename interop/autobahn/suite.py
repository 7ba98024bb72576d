"""The Autobahn testsuite, as a client that tests a server and as a server that tests a client."""

import json
import subprocess
from pathlib import Path

from program import CannotRun, Listener, run_to_end

HERE = Path(__file__).resolve().parent


class Suite:
    """The suite, installed if it was not yet, with what it is to do in one run."""

    def __init__(self, cases, count, folder, report):
        """Runs `cases`, with `count` messages in each of sections 12 and 13. `folder` is for what the run needs, and
        the suite's own report and log go into the folder `report`."""
        done = subprocess.run([HERE / "setup"], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise CannotRun("the testsuite could not be set up, see above", 3 if done.returncode == 3 else 2)
        self.python = done.stdout.strip()
        self.spec = {"outdir": str(report), "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
        self.count = count
        self.folder = folder
        self.log = report / "wstest.log"

    def test_server(self, agent, address, timeout):
        """Tests the server at `address`; what went wrong beside the cases themselves."""
        command = self.command("fuzzingclient", {"servers": [{"agent": agent, "url": address}]})
        return run_to_end("the testsuite", command, self.log, timeout, folder=self.folder)

    def serve(self, certificate_and_key):
        """Listens for the client to be tested, which names itself; over TLS if given a certificate and key."""
        # The suite takes the scheme from the address and insists on some port; where it listens is not up to it.
        scheme, spec = "ws", {}
        if certificate_and_key:
            certificate, key = certificate_and_key
            scheme, spec = "wss", {"cert": str(certificate), "key": str(key)}
        command = self.command("fuzzingserver", {"url": f"{scheme}://127.0.0.1:1", **spec})
        return Listener("the testsuite", command, scheme, self.log, folder=self.folder)

    def command(self, mode, spec):
        file = self.folder / "spec.json"
        file.write_text(json.dumps({**self.spec, **spec}))
        return [self.python, "-u", HERE / "wstest_counted.py", mode, self.count, file]


def make_certificate(folder):
    """A certificate for 127.0.0.1, which signs itself and may sign nothing else, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    # A client refuses a server that shows it the certificate of an authority.
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    command += ["-keyout", key, "-out", certificate]
    try:
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise CannotRun(f"--tls needs the openssl command: {error}") from error
    if made.returncode != 0:
        raise CannotRun(f"openssl could not make a certificate:\n{made.stdout}")
    return certificate, key
