"""Tests of what a run starts and what it is called: python3 -m unittest discover -s interop/autobahn"""

import contextlib
import importlib.machinery
import importlib.util
import io
import itertools
import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from program import CannotRun, Listener, run_to_end  # noqa: E402

# The command `run` has no ending that Python would import.
loader = importlib.machinery.SourceFileLoader("run", str(HERE / "run"))
run = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
loader.exec_module(run)

LISTENING = "print('listening on ws://127.0.0.1:1', flush=True)"
UNTIL_SIGTERM = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(CODE)); " + LISTENING + "; signal.pause()"


class OptionsTest(unittest.TestCase):
    def test_no_two_configurations_share_a_name_or_a_folder(self):
        roles = [["--client"], [], ["--driver", "shard"], ["--driver", "tokio"]]
        parsed = [run.parse_options(role + tls + deflate) for role, tls, deflate in itertools.product(roles, [[], ["--tls"]], [[], ["--no-deflate"]])]
        self.assertEqual(len({options.configuration for options in parsed}), 16)
        self.assertEqual(len({options.report for options in parsed}), 16)
        self.assertEqual(parsed[-1].configuration, "server tokio wss no-deflate")
        self.assertEqual(parsed[-1].report.name, "server-tokio-wss-no-deflate")

    def test_taut_itself_is_tested_under_its_name_and_others_under_their_role(self):
        for arguments, agent in [([], "taut"), (["--client"], "taut"), (["--", "a"], "server"), (["--client", "--", "a"], "client"), (["--url", "ws://a"], "server")]:
            with self.subTest(arguments=arguments):
                self.assertEqual(run.parse_options(arguments).agent, agent)

    def test_options_that_contradict_each_other_are_refused(self):
        url = ["--url", "ws://127.0.0.1:1"]
        for arguments in [url + ["--client"], url + ["--driver", "tokio"], url + ["--tls"], url + ["--", "a"], ["--client", "--driver", "shard"], ["--driver", "other"], ["--count", "0"], ["--cases", "8.*"]]:
            with self.subTest(arguments=arguments), contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
                run.parse_options(arguments)


class ProgramTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log = Path(folder.name) / "log"

    def test_a_listener_that_ends_with_0_on_sigterm_is_fine(self):
        listener = self.listen(UNTIL_SIGTERM.replace("CODE", "0"))
        self.assertEqual(listener.address, "ws://127.0.0.1:1")
        self.assertEqual(listener.stop(), [])

    def test_a_listener_that_ends_with_another_code_is_complained_of(self):
        complaints = self.listen(UNTIL_SIGTERM.replace("CODE", "3")).stop()
        self.assertIn("ended with exit code 3 on SIGTERM", complaints[0])

    def test_a_listener_that_ends_by_itself_is_complained_of(self):
        listener = self.listen(f"import sys; {LISTENING}; print('too tired', file=sys.stderr); exit(0)")
        listener.process.wait()
        complaints = listener.stop()
        self.assertIn("ended by itself", complaints[0])
        self.assertIn("too tired", complaints[0])

    def test_a_listener_with_another_first_line_makes_no_run_and_is_ended(self):
        for line in ["here I am", "listening on wss://127.0.0.1:1", "listening on ws://0.0.0.0:1", "listening on ws://127.0.0.1:1/"]:
            with self.subTest(line=line):
                with self.assertRaisesRegex(CannotRun, "first line"):
                    self.listen(f"{self.writes_its_id()}; print({line!r}, flush=True); import signal; signal.pause()")
                self.assert_ended()

    def test_a_program_that_is_not_there_makes_no_run(self):
        with self.assertRaisesRegex(CannotRun, "cannot start the client: .*; build it first"):
            run_to_end("the client", [self.log.with_name("client")], self.log, 60, hint="; build it first")

    def test_a_program_that_runs_to_its_end_must_end_with_0(self):
        self.assertEqual(self.run_to_end("exit(0)"), [])
        complaints = self.run_to_end("print('no such case'); exit(1)")
        self.assertIn("failed with exit code 1", complaints[0])
        self.assertIn("no such case", complaints[0])

    def test_a_program_that_does_not_end_is_ended(self):
        complaints = self.run_to_end(f"{self.writes_its_id()}; import signal; signal.pause()", timeout=2)
        self.assertIn("was ended after 2 s", complaints[0])
        self.assert_ended()

    def writes_its_id(self):
        return f"import os; open({str(self.log.with_name('id'))!r}, 'w').write(str(os.getpid()))"

    def assert_ended(self):
        with self.assertRaises(ProcessLookupError):
            os.kill(int(self.log.with_name("id").read_text()), 0)

    def listen(self, script):
        listener = Listener("the server", [sys.executable, "-c", script], "ws", self.log)
        self.addCleanup(listener.kill)
        return listener

    def run_to_end(self, script, timeout=60):
        return run_to_end("the client", [sys.executable, "-c", script], self.log, timeout)


if __name__ == "__main__":
    unittest.main()
