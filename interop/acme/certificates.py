"""Certificates that `taut serve` obtains by ACME: from nothing to wss://, renewals, restarts, and authorities that refuse."""

import calendar
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
import unittest
import urllib.request

from authority import ACCOUNT, ORDER, SUGGESTION, WITHIN, Names, Pebble, Programs, Proxy, eventually, free_port
from websockets.sync.client import connect

TAUT = os.environ["TAUT_BIN"]
EAB = {"kid": "kid-1", "hmac": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}


class Taut:
    """`taut serve`, its log kept."""

    def __init__(self, port, data, directory, root, *names, options=()):
        self.port = port
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TAUT_")}
        command = [TAUT, "serve", "--app", "1:key:secret", "--listen", f"127.0.0.1:{port}", "--shards", "1", "--metrics-listen", "127.0.0.1:0",
                   "--log-level", "info,taut_server=debug", "--drain-timeout", "1", "--data-directory", data, "--acme-directory", directory,
                   "--acme-ca-root", root, *(f"--acme={name}" for name in names), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines = []
        self.heard = threading.Condition()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        first = self.process.stdout.readline()
        if f"listening on https://127.0.0.1:{port}" not in first:
            self.close()
            raise AssertionError(f"{first}\n{self.log()}")
        self.metrics_port = int(re.search(r"metrics=\S*:(\d+)", self.says("serving"))[1])

    def read(self):
        for line in self.process.stderr:
            with self.heard:
                self.lines.append(re.sub(r"\x1b\[\d+m", "", line))
                self.heard.notify_all()

    def log(self):
        return "".join(self.lines)

    def said(self, text):
        return [line for line in self.lines if text in line]

    def says(self, text, times=1):
        """The last of so many lines with this text, once it is there."""
        with self.heard:
            if not self.heard.wait_for(lambda: len(self.said(text)) >= times, WITHIN):
                raise AssertionError(f"{text!r} was not said {times} times within {WITHIN} s:\n{self.log()}")
        return self.said(text)[times - 1]

    def hurry(self):
        """What an operator does who has looked into it."""
        self.process.send_signal(signal.SIGHUP)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=WITHIN) as answer:
            lines = (line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
            return {name: float(value) for name, value in lines}

    def orders(self):
        metrics = self.metrics()
        return tuple(int(metrics[f'taut_acme_orders_total{{outcome="{outcome}"}}']) for outcome in ("issued", "failed"))

    def expiry(self):
        return self.metrics().get("taut_tls_certificate_expiry_timestamp_seconds")

    def certificate(self, root, name):
        """What a client is shown that trusts this root."""
        with socket.create_connection(("127.0.0.1", self.port), WITHIN) as stream:
            with ssl.create_default_context(cadata=root).wrap_socket(stream, server_hostname=name) as client:
                return client.getpeercert()

    def websocket(self, root, name):
        context = ssl.create_default_context(cadata=root)
        stream = socket.create_connection(("127.0.0.1", self.port), WITHIN)
        return connect(f"wss://{name}:{self.port}/app/key?protocol=7", sock=stream, ssl=context, server_hostname=name, compression=None)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(WITHIN)
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Certificates(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.names = Names()
        cls.addClassCleanup(cls.names.close)

    def setUp(self):
        # Where the authority connects to instead of 443, and clients as well.
        self.port, self.pebble_port = free_port(), free_port()
        self.folder = Programs()
        self.addCleanup(self.folder.close)
        self.data = self.folder.path("data")
        self.proxy = Proxy(self.names, self.pebble_port)
        self.addCleanup(self.proxy.close)

    def authority(self, **settings):
        pebble = Pebble(self.names, self.pebble_port, self.port, **settings)
        self.addCleanup(pebble.close)
        return pebble

    def serve(self, *names, data=None, directory=None, options=()):
        taut = Taut(self.port, data or self.data, directory or self.proxy.directory, self.names.root, *names, options=options)
        self.addCleanup(taut.close)
        return taut

    def speaks(self, client):
        client.send('{"event":"pusher:ping","data":{}}')
        self.assertEqual(json.loads(client.recv(WITHIN))["event"], "pusher:pong")

    def test_from_nothing_to_a_renewed_certificate_under_open_websockets(self):
        # Nothing is there yet, and the authority is down: clients get an alert, and no certificate that somebody has to wave through.
        taut = self.serve("a.example", "b.example", options=("--acme-contact", "admin@example.com"))
        failed = taut.says("no certificate could be obtained")
        self.assertRegex(failed, r"the answer was 502 Bad Gateway.*acme-directory")
        taut.says("it must lead to this port")
        with self.assertRaises(ssl.SSLError) as refused:
            taut.certificate(None, "a.example")
        self.assertIn("ACCESS_DENIED", str(refused.exception).upper().replace(" ", "_"))
        self.assertEqual((taut.orders(), taut.expiry()), ((0, 1), None))

        # The authority is back, and refuses many nonces.
        pebble = self.authority(refused_nonces=30, certificateValidityPeriod=90 * 86_400)
        taut.hurry()
        taut.says("there is a new certificate")
        first = taut.certificate(pebble.root, "a.example")
        self.assertEqual(sorted(first["subjectAltName"]), [("DNS", "a.example"), ("DNS", "b.example")])
        self.assertEqual(taut.expiry(), ssl.cert_time_to_seconds(first["notAfter"]))
        client = self.enterContext(taut.websocket(pebble.root, "b.example"))
        self.assertEqual(json.loads(client.recv(WITHIN))["event"], "pusher:connection_established")
        self.only_the_owner_may_read()

        # It has just been issued: a suggestion to renew it at once is not followed, or there would be one order after the other.
        taut.says("the authority suggests when to renew")
        self.proxy.renew_now = True
        self.asked_anew(taut)
        # It is asked again only after an order that the answer before would have led to.
        self.asked_anew(taut)
        self.speaks(client)
        client.close()
        self.assertEqual((taut.orders(), self.proxy.renewed), ((1, 1), []))

        # After a restart the certificate is there at once. The authority is asked first, names a time to ask again that no clock has, and is asked
        # again all the same.
        self.proxy.renew_now, self.proxy.ask_again = False, "18446744073709551615"
        taut.close()
        taut = self.serve("a.example", "b.example", options=("--acme-contact", "admin@example.com"))
        taut.says("the certificate that is kept is in use")
        taut.says("the authority suggests when to renew")
        self.assertEqual(taut.certificate(pebble.root, "b.example")["serialNumber"], first["serialNumber"])
        client = self.enterContext(taut.websocket(pebble.root, "b.example"))
        self.assertEqual(json.loads(client.recv(WITHIN))["event"], "pusher:connection_established")

        # The authority wants it to be renewed (RFC 9773), says not when to ask again, and is told what is replaced. The WebSocket stays open.
        self.proxy.renew_now, self.proxy.ask_again = True, ""
        self.asked_anew(taut)
        taut.says("there is a new certificate")
        second = taut.certificate(pebble.root, "a.example")
        self.assertNotEqual(second["serialNumber"], first["serialNumber"])
        self.speaks(client)
        for _ in range(2):
            self.asked_anew(taut)
        self.assertEqual((taut.orders(), len(self.proxy.renewed)), ((1, 0), 1))

        # Another server is refused the folder, and orders nothing.
        orders, accounts = self.proxy.count(ORDER), self.proxy.count(ACCOUNT)
        with self.assertRaises(AssertionError) as refused:
            Taut(free_port(), self.data, self.proxy.directory, self.names.root, "a.example")
        self.assertIn("data-directory", str(refused.exception))

        # After another restart the new one is there, and what the authority suggests is its own affair.
        self.proxy.renew_now = False
        taut.close()
        taut = self.serve("a.example", "b.example", options=("--acme-contact", "admin@example.com"))
        taut.says("the authority suggests when to renew")
        self.assertEqual(taut.certificate(pebble.root, "b.example")["serialNumber"], second["serialNumber"])
        self.asked_anew(taut)
        self.assertEqual((self.proxy.count(ORDER), self.proxy.count(ACCOUNT)), (orders, accounts))
        self.assertEqual(taut.orders(), (0, 0))

    def asked_anew(self, taut):
        """Lets the authority be asked when to renew, and waits for it."""
        before = self.proxy.count(SUGGESTION)
        taut.hurry()
        eventually(taut.log, lambda: self.proxy.count(SUGGESTION) > before)

    def only_the_owner_may_read(self):
        files = [os.path.join(folder, file) for folder, _, files in os.walk(os.path.join(self.data, "acme")) for file in files]
        self.assertEqual(sorted(map(os.path.basename, files)), ["account.json", "certificate.pem", "orders.json"])
        for file in files:
            self.assertEqual(stat.S_IMODE(os.stat(file).st_mode), 0o600, file)

    def test_a_certificate_is_renewed_after_two_thirds_of_its_life_also_by_an_authority_that_forgot_the_account(self):
        pebble = self.authority(certificateValidityPeriod=90 * 86_400)
        directory = f"https://localhost:{self.pebble_port}/dir"
        taut = self.serve("a.example", directory=directory)
        taut.says("there is a new certificate")
        taut.close()
        pebble.close()

        # The kept certificate is not for all names. The authority has forgotten the account, which shows when a contact is added to it, and requires
        # one that it knows from elsewhere.
        pebble = self.authority(certificateValidityPeriod=12, externalAccountBindingRequired=True, externalAccountMACKeys={EAB["kid"]: EAB["hmac"]})
        taut = self.serve("a.example", "b.example", directory=directory, options=("--acme-contact", "admin@example.com"))
        taut.says("the certificate that is kept is not for all names")
        taut.says("the authority does not know the ACME account")
        refused = taut.says("the certificate could not be renewed: it stays in use")
        self.assertRegex(refused, "externalAccountRequired.*acme-eab-kid")
        taut.close()
        # Without a contact it shows when the order is sent.
        taut = self.serve("a.example", "b.example", directory=directory, options=("--acme-eab-kid", EAB["kid"], "--acme-eab-hmac", EAB["hmac"]))
        taut.says("the authority does not know the ACME account")
        taut.says("there is a new certificate")
        first = taut.certificate(pebble.root, "b.example")
        client = self.enterContext(taut.websocket(pebble.root, "a.example"))
        client.recv(WITHIN)
        taut.says("there is a new certificate", 2)
        second = taut.certificate(pebble.root, "b.example")
        self.assertNotEqual(second["serialNumber"], first["serialNumber"])
        begins = [ssl.cert_time_to_seconds(certificate["notBefore"]) for certificate in (first, second)]
        self.assertTrue(7 <= begins[1] - begins[0] <= 12, begins)
        self.speaks(client)
        self.assertNotIn(EAB["hmac"], taut.log())

    def test_what_an_authority_refuses_is_told_in_its_words_and_takes_few_requests(self):
        self.authority(domainBlocklist=["blocked.example"])
        self.names.lead("127.0.0.99", "elsewhere.example")
        for number, (name, directory, told) in enumerate((
            ("blocked.example", None, r"blocked\.example.*\(rejectedIdentifier\).*advice=\"The authority issues no certificate for this name"),
            ("elsewhere.example", None, r"elsewhere\.example: Failed to connect to 127\.0\.0\.99.*advice=\"Another server answers for this name, or none"),
            ("a.example", self.proxy.directory + "ectory", r"the answer was 404 Not Found.*acme-directory"),
            ("a.example", f"https://localhost:{free_port()}/dir", r"no connection: .*refused.*acme-directory"),
        )):
            with self.subTest(told):
                before = self.proxy.total()
                with contextlib.closing(self.serve(name, data=self.folder.path(f"data-{number}"), directory=directory)) as taut:
                    self.assertRegex(taut.says("no certificate could be obtained"), told)
                    self.assertLessEqual(self.proxy.total() - before, 20)
                    self.assertEqual(taut.orders(), (0, 1))

    def test_neither_impatience_nor_restarts_make_a_storm_of_orders(self):
        self.authority(domainBlocklist=["blocked.example"])
        taut = self.serve("blocked.example")
        for failures in range(1, 6):
            taut.says("no certificate could be obtained", failures)
            taut.hurry()
        taut.says("no order before")
        taut.close()
        for _ in range(2):
            taut = self.serve("blocked.example")
            taut.hurry()
            taut.says("no order before")
            taut.close()
        self.assertEqual(self.proxy.count(ORDER), 5)
        self.assertEqual(self.proxy.count(ACCOUNT), 1)

    def test_an_authority_that_wants_to_be_left_alone_is(self):
        self.authority()
        problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates already issued for example", "status": 429}
        self.proxy.refusal = (429, {"Retry-After": "7200", "Content-Type": "application/problem+json"}, json.dumps(problem).encode())
        started = time.time()
        taut = self.serve("a.example")
        failed = taut.says("no certificate could be obtained")
        self.assertRegex(failed, r"too many certificates already issued for example \(rateLimited\).*staging")
        following = re.search(r"next=(.*GMT)", failed)[1]
        self.assertTrue(7100 <= calendar.timegm(time.strptime(following, "%a, %d %b %Y %H:%M:%S GMT")) - started <= 7300, following)
        self.proxy.refusal = None
        orders = self.proxy.count(ORDER)
        taut.hurry()
        taut.says("no order before")
        taut.close()
        taut = self.serve("a.example")
        taut.hurry()
        taut.says("no order before")
        self.assertEqual(self.proxy.count(ORDER), orders)

    def test_a_check_reads_what_is_kept_and_orders_nothing(self):
        def check(*options):
            run = subprocess.run([TAUT, "serve", "--check", "--app", "1:key:secret", "--listen", "127.0.0.1:0", *options], capture_output=True, text=True)
            return run.returncode, run.stdout + run.stderr
        to_acme = ("--acme-directory", self.proxy.directory, "--acme-ca-root", self.names.root)
        code, text = check("--acme", "a.example", *to_acme)
        self.assertEqual(code, 1, text)
        self.assertEqual(text.count("data-directory is not"), 1, text)
        code, text = check("--acme", "a.example", "--data-directory", self.data, *to_acme)
        self.assertEqual(code, 0, text)
        self.assertIn(f"certificate for a.example, from {self.proxy.directory}", text)
        self.assertIn("there is no certificate yet", text)
        self.assertFalse(os.path.exists(self.data))
        code, text = check("--acme", "a.example", "--data-directory", self.data, "--acme-ca-root", self.names.key)
        self.assertEqual(code, 1, text)
        self.assertIn("it must contain PEM certificates", text)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.data)

        self.authority()
        taut = self.serve("a.example")
        taut.says("there is a new certificate")
        code, text = check("--acme", "a.example", "--data-directory", self.data, *to_acme)
        self.assertEqual(code, 0, text)
        self.assertIn("the certificate of ACME is kept in data-directory, and ends ", text)
        self.assertEqual((self.proxy.count(ORDER), self.proxy.count(ACCOUNT)), (1, 1))


if __name__ == "__main__":
    unittest.main()
